"""The published cells, as their configs build them, against what the published programs computed."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, TRANSFORMS, init_default_scope

from internvl_dense.dense.slide import slide_windows
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.launch import build_model_on_meta
from internvl_dense.zoo import ZOO
from tests.parity.test_layer_decay_parity import our_name
from tests.parity.test_schedule_parity import REL, rates

Golden = Callable[[str], Any]
VARIANT = 'internvit_6b_224px_ade20k'
GROUPS = {'upernet_full_depth48': f'full_tuning_{VARIANT}', 'linear_frozen': f'linear_probing_{VARIANT}',
          'upernet_frozen': f'head_tuning_{VARIANT}', 'adapter_depth48': f'vit_adapter_{VARIANT}'}
SCHEDULES = {'poly_5000_100': '1of16', 'poly_10000_200': '1of8', 'poly_20000_400': '1of4', 'poly_40000_800': '1of2',
             'poly_80000_1500': '1of1'}
ROUNDED = 1e-12  # products of the same factors in another order


def load(name: str) -> Config:
    config = load_config(Namespace(config=name))
    assert config.model.numerics == 'published'
    return config


def optimizer(config: Config) -> Any:
    """The optimizer of a config on a model without memory."""
    wrapper = dict(config.optim_wrapper)
    cls = OPTIM_WRAPPER_CONSTRUCTORS.get(wrapper.pop('constructor'))
    return cls(wrapper, wrapper.pop('paramwise_cfg'))(build_model_on_meta(config)).optimizer


@pytest.mark.parametrize('case', GROUPS)
def test_every_optimizer_group(golden: Golden, case: str) -> None:
    table = golden('layer_decay')['cases'][case]['table']
    groups = optimizer(load(GROUPS[case])).param_groups
    found = {name: group for group in groups for name in group['param_names']}
    assert len(found) == len(table)
    for name, row in table.items():
        group = found[our_name(name)]
        assert group['group_name'] == row['group']
        assert (group['lr'], group['weight_decay']) == pytest.approx((row['lr'], row['weight_decay']), rel=ROUNDED)


def test_fast_numerics_change_the_decay_of_the_tokens_alone(golden: Golden) -> None:
    table = golden('layer_decay')['cases']['upernet_full_depth48']['table']
    config = load_config(Namespace(config=GROUPS['upernet_full_depth48'], numerics='fast'))
    groups = optimizer(config).param_groups
    decay = {name: group['weight_decay'] for group in groups for name in group['param_names']}
    changed = {name for name, row in table.items() if decay[our_name(name)] != row['weight_decay']}
    assert changed == {'backbone.pos_embed', 'backbone.cls_token'}


@pytest.mark.parametrize('name', SCHEDULES)
def test_learning_rate_of_every_length(golden: Golden, name: str) -> None:
    case = golden('lr_schedules')['cases'][name]
    config = load(f'few_shot_{SCHEDULES[name]}_{VARIANT}')
    assert config.train_cfg.max_iters == case['max_iters']
    assert config.optim_wrapper.optimizer.lr == case['initial_lrs'][0]
    schedule = dict(config.param_scheduler[0])
    for row, ours in zip(case['lr'].tolist(), rates(schedule, case['initial_lrs'], case['iters']), strict=True):
        assert ours == pytest.approx(row, rel=REL)


@pytest.mark.parametrize('name', ZOO.list())
def test_sizes_and_windows_of_every_published_model(golden: Golden, name: str) -> None:
    """Few-shot cells were published with another resize; on images up to an aspect ratio of 4 both give one size."""
    init_default_scope('mmseg')
    config = load(name)
    steps = [TRANSFORMS.build(step) for step in config.test_pipeline if 'Resize' in step.type]
    assert [type(step).__name__ for step in steps] == ['SETRResize', 'ResizeToMultiple']
    test_cfg = config.model.test_cfg
    checked = 0
    for row in golden('resize_and_windows')['rows']:
        if tuple(row['scale']) != tuple(steps[0].scale):
            continue
        results: dict[str, Any] = {'img': np.zeros(row['ori'], np.uint8), 'img_shape': row['ori']}
        for step in steps:
            results = step.transform(results)
        size = results['img'].shape[:2]
        assert size == row['setr_then_multiple14']
        assert slide_windows(size, test_cfg.crop_size, test_cfg.stride) == row['windows_504_322']
        if max(row['ori']) <= 4 * min(row['ori']):
            assert size == row['plain_then_multiple14']
            checked += 1
    assert checked >= 8


def test_sizes_and_windows_of_the_adapter(golden: Golden) -> None:
    init_default_scope('mmseg')
    config = load(GROUPS['adapter_depth48'])
    steps = [TRANSFORMS.build(step) for step in config.test_pipeline if 'Resize' in step.type]
    assert [type(step).__name__ for step in steps] == ['SETRResize']
    rows = golden('resize_and_windows')['adapter_rows']
    assert len(rows) == 16
    for row in rows:
        size = steps[0].transform({'img': np.zeros(row['ori'], np.uint8), 'img_shape': row['ori']})['img'].shape[:2]
        assert size == row['setr']
        windows = slide_windows(size, config.model.test_cfg.crop_size, config.model.test_cfg.stride)
        assert windows == row['windows_512_341']


@pytest.mark.parametrize(('name', 'processes'), list(itertools.product(ZOO.list(), (1, 8))))
def test_batch_is_that_of_the_recipe(name: str, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', str(processes))
    config = load_config(Namespace(config=name, launcher='pytorch'))
    assert config.train_dataloader.batch_size * processes == 16
    fast = load_config(Namespace(config=name, launcher='pytorch', numerics='fast'))
    assert fast.train_dataloader.batch_size == 2
