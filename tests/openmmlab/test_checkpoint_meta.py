"""What a checkpoint says about itself."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import internvl_dense.openmmlab  # noqa: F401  registers the backbone
from internvl_dense.backbones.create import create_backbone
from internvl_dense.errors import UserError
from internvl_dense.openmmlab import checkpoint_meta
from internvl_dense.openmmlab.launch import build_runner
from internvl_dense.safe_save import to_plain

DATASET = SimpleNamespace(
    metainfo={'classes': ('road', 'tree'), 'palette': [(1, 2, 3), (4, 5, 6)]}, ignore_index=254, reduce_zero_label=True)


def model_with(weights: pathlib.Path | None) -> nn.Module:
    config = {'type': 'InternViT', 'variant': 'internvit_debug', 'weights': str(weights) if weights else 'random'}
    backbone = MODELS.build(config)
    backbone.init_weights()
    return nn.ModuleDict({'backbone': backbone, 'head': nn.Conv2d(1, 1, 1)})


@pytest.fixture
def weights(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / 'weights.pth'
    torch.save(create_backbone('internvit_debug').state_dict(), path)
    return path


def test_variant_classes_and_policy() -> None:
    meta = checkpoint_meta.describe(model_with(None), DATASET, 'model = 1', None)
    assert meta == {
        'format': 2, 'variant': 'internvit_debug', 'classes': ['road', 'tree'], 'palette': [[1, 2, 3], [4, 5, 6]],
        'label_policy': {'ignore_index': 254, 'reduce_zero_label': True}, 'weights': None, 'numerics': None,
        'config': 'model = 1',
    }
    assert to_plain(meta) == meta


def test_a_model_without_internvit_and_a_data_set_without_classes() -> None:
    meta = checkpoint_meta.describe(nn.Conv2d(1, 1, 1), SimpleNamespace(), '', None)
    assert (meta['variant'], meta['classes'], meta['palette']) == (None, [], [])
    assert meta['label_policy'] == {'ignore_index': 255, 'reduce_zero_label': False}


def test_weights_are_named_with_their_checksum(weights: pathlib.Path) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert checkpoint_meta.origin(model_with(weights), None) == {'path': str(weights), 'sha256': digest}
    assert checkpoint_meta.origin(model_with(None), None) == {'path': 'random', 'sha256': None}
    assert checkpoint_meta.origin(nn.Conv2d(1, 1, 1), None) is None
    assert checkpoint_meta.origin(model_with(None), str(weights)) == {'path': str(weights), 'sha256': digest}


def test_a_whole_checkpoint_goes_before_the_weights_of_the_trunk(weights: pathlib.Path, tmp_path: pathlib.Path) -> None:
    whole = tmp_path / 'whole.pth'
    torch.save({'state_dict': {'a': torch.zeros(1)}}, whole)
    origin = checkpoint_meta.origin(model_with(weights), str(whole))
    assert origin is not None
    assert origin['path'] == str(whole)


def test_reading_back() -> None:
    meta = checkpoint_meta.describe(model_with(None), DATASET, '', None)
    assert checkpoint_meta.read({'meta': {checkpoint_meta.KEY: meta}}, 'a.pth') == meta


@pytest.mark.parametrize('checkpoint', [{}, {'meta': {}}, {'state_dict': {}}, [], None], ids=str)
def test_checkpoints_of_other_software(checkpoint: Any) -> None:
    with pytest.raises(UserError, match='a.pth has no entry meta.internvl_dense'):
        checkpoint_meta.read(checkpoint, 'a.pth')


def test_a_later_format_asks_for_an_upgrade() -> None:
    meta = {**checkpoint_meta.describe(model_with(None), DATASET, '', None), 'format': 3}
    with pytest.raises(UserError, match='a.pth has format 3, this version reads 2: upgrade internvl-dense'):
        checkpoint_meta.read({'meta': {checkpoint_meta.KEY: meta}}, 'a.pth')


def test_classes_are_compared_in_order() -> None:
    checkpoint_meta.check_classes(['a', 'b'], ('a', 'b'), 'a.pth')
    with pytest.raises(UserError) as error:
        checkpoint_meta.check_classes(['a', 'b', 'c'], ['b', 'a', 'c'], 'a.pth')
    assert "0: checkpoint 'a', data 'b'; 1: checkpoint 'b', data 'a'" in str(error.value)
    with pytest.raises(UserError, match=r'3 classes, the data set has 2 and they differ \(one list is longer\)'):
        checkpoint_meta.check_classes(['a', 'b', 'c'], ['a', 'b'], 'a.pth')


def test_weights_alone_cannot_be_resumed() -> None:
    checkpoint_meta.require_run_state({'optimizer': {}, 'meta': {}, 'message_hub': {}}, 'a.pth')
    with pytest.raises(UserError, match='a.pth cannot be resumed, it has no optimizer, message_hub'):
        checkpoint_meta.require_run_state({'meta': {}, 'state_dict': {}}, 'a.pth')


def test_a_run_writes_it(demo_config: Callable[..., Config], tmp_path: pathlib.Path) -> None:
    init_default_scope('mmseg')
    config = demo_config('train_cfg.max_iters=1', 'train_cfg.val_interval=1')
    config.default_hooks.checkpoint.interval = 1
    build_runner(config).train()
    checkpoint = torch.load(tmp_path / 'work' / 'iter_1.pth', weights_only=True)
    meta = checkpoint_meta.read(checkpoint, 'iter_1.pth')
    assert (meta['variant'], meta['weights']) == ('internvit_debug', {'path': 'random', 'sha256': None})
    assert meta['numerics'] == 'fast'
    assert meta['classes'] == list(config.train_dataloader.dataset.metainfo.classes)
    assert "variant='internvit_debug'" in meta['config']
