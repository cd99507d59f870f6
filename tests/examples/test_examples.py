"""The examples of docs/importing.md: the page shows these files, and each one runs."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import pathlib
import re
import runpy
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import internvl_dense.openmmlab  # noqa: F401
from tests import tiny_runs

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parents[1] / 'docs' / 'importing.md'
NOT_SHOWN = {'gloo_train.py'}
FILES = sorted(path for path in HERE.glob('*.py') if not path.name.startswith('test_') and path.name not in NOT_SHOWN)


def run(name: str) -> dict:
    torch.manual_seed(0)
    return runpy.run_path(str(HERE / f'{name}.py'))


def test_the_page_shows_the_files():
    shown = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.S)
    assert len(FILES) == 8
    assert sorted(shown) == sorted(path.read_text() for path in FILES)


def test_plain_loop_trains_the_decoder_only():
    names = run('plain_loop')
    losses = [loss.item() for loss in names['losses']]
    assert len(losses) == 10 and losses[-1] < 0.98 * losses[0]
    assert names['info'].channels == (128,) * 4 and names['info'].strides == (14,) * 4
    assert all(parameter.grad is None for parameter in names['backbone'].parameters())


def test_timm_style():
    names = run('timm_style')
    for x_BChw, channels, stride in zip(names['maps'], names['channels'], names['strides'], strict=True):
        assert x_BChw.shape == (2, channels, 140 // stride, 112 // stride)


def test_hf_backbone():
    outputs = run('hf_backbone')['outputs']
    assert [tuple(x.shape) for x in outputs.feature_maps] == [(1, 128, 10, 8)] * 2
    assert len(outputs.hidden_states) == 5


def test_hf_upernet():
    pytest.importorskip('transformers', minversion='5')
    names = run('hf_upernet')
    assert names['outputs'].logits.shape == (2, 6, 140, 140)
    model = names['model']
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert model.decode_head.classifier.weight.grad.abs().sum() > 0


def test_maps_for_torchvision():
    model = run('maps')['Maps']('internvit_debug', out_channels=32)
    maps = model(torch.randn(1, 3, 140, 112))
    assert list(maps) == ['0', '1', '2', '3']
    assert [tuple(x.shape) for x in maps.values()] == [(1, model.out_channels, 40 // n, 32 // n) for n in (1, 2, 4, 8)]


def test_torchvision_faster_rcnn(monkeypatch):
    try:
        importlib.import_module('torchvision')
    except (ImportError, RuntimeError) as error:  # RuntimeError: its operators are built for another torch
        pytest.skip(f'torchvision cannot be imported here: {error}')
    monkeypatch.syspath_prepend(str(HERE))
    losses = run('torchvision_faster_rcnn')['losses']
    assert {'loss_classifier', 'loss_box_reg', 'loss_objectness', 'loss_rpn_box_reg'} == set(losses)
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.fixture(scope='module')
def mmseg_config(tmp_path_factory):
    """The example beside the file of mmsegmentation that it starts from."""
    package = pathlib.Path(importlib.util.find_spec('mmseg').submodule_search_locations[0])
    folder = tmp_path_factory.mktemp('mmseg') / 'configs'
    shutil.copytree(package / '.mim' / 'configs' / '_base_', folder / '_base_')
    shutil.copytree(package / '.mim' / 'configs' / 'upernet', folder / 'upernet')
    return Config.fromfile(shutil.copy(HERE / 'mmseg_upernet.py', folder / 'upernet'))


def test_mmseg_channels_are_those_of_the_backbone(mmseg_config):
    model = mmseg_config.model
    info = MODELS.build({**model.backbone}).feature_info
    assert tuple(model.decode_head.in_channels) == info.channels
    assert model.auxiliary_head.in_channels == info.channels[model.auxiliary_head.in_index]


def test_mmseg_config_trains(mmseg_config):
    settings = copy.deepcopy(mmseg_config.model)
    settings.backbone.update(tiny_runs.TINY_TRUNK)
    settings.decode_head.update(in_channels=[16] * 4, channels=8, norm_cfg=dict(type='BN'))
    settings.auxiliary_head.update(in_channels=16, channels=8, norm_cfg=dict(type='BN'))
    settings.data_preprocessor.size = (112, 140)
    init_default_scope('mmseg')
    model = MODELS.build(settings)
    model.init_weights()
    data = tiny_runs.batch(torch.randint(0, 256, (2, 3, 112, 140)), torch.randint(0, 150, (2, 1, 112, 140)))
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    (losses['decode.loss_ce'] + losses['aux.loss_ce']).backward()
    assert model.backbone.up1[0].weight.grad.abs().sum() > 0
    assert model.backbone.patch_embed.proj.weight.grad.abs().sum() > 0
