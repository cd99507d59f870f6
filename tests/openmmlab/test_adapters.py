"""ViT-Adapter as configs name it: registry, weights of the trunk, precision, checkpoints without the trunk."""

from __future__ import annotations

import inspect
import pathlib
from argparse import Namespace
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import internvl_dense.openmmlab  # noqa: F401  registers the backbone
from internvl_dense.backbones.create import create_backbone
from internvl_dense.backbones.fingerprint import Origin
from internvl_dense.backbones.trunk_keys import is_trunk_key, trunk_parameters
from internvl_dense.dense import InternViTAdapter
from internvl_dense.errors import UserError
from internvl_dense.openmmlab import checkpoint_meta, frozen_trunk
from internvl_dense.openmmlab.adapters import InternViTAdapterBackbone, complete_backbone
from internvl_dense.openmmlab.backbones import InternViTBackbone
from internvl_dense.openmmlab.config_checks import config_problems
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.optimizers import trunk_and_depth
from internvl_dense.openmmlab.trunks import find_trunk
from internvl_dense.training.numerics import FAST, PUBLISHED

TINY = {'embed_dim': 8, 'num_heads': 2, 'image_size': 28}
SMALL = {'conv_inplane': 4, 'n_points': 2, 'deform_ratio': 0.5}
CONFIG = {'type': 'InternViTAdapter', 'variant': 'internvit_debug', 'weights': 'random', **TINY, **SMALL}
IMAGE = torch.zeros(1, 3, 50, 70)


def build(**options: Any) -> Any:
    return MODELS.build({**CONFIG, **options})


@pytest.fixture
def weights(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / 'weights.pth'
    torch.save(create_backbone('internvit_debug', **TINY).state_dict(), path)
    return path


def own(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not is_trunk_key(name)}


@pytest.mark.parametrize('scope', ['mmengine', 'mmseg', 'mmdet'])
def test_found_in_every_scope(scope: str) -> None:
    init_default_scope(scope)
    assert isinstance(build(), InternViTAdapter)
    init_default_scope('mmseg')


def test_options_and_their_defaults_are_those_of_the_module() -> None:
    ours = inspect.signature(InternViTAdapterBackbone).parameters
    theirs = inspect.signature(InternViTAdapter).parameters
    named = {name for name in theirs if name not in ('backbone', 'drop_path_rate')}
    assert named == ours.keys() - {'variant', 'drop_path_rate', 'kwargs'}
    assert {name: ours[name].default for name in named} == {name: theirs[name].default for name in named}


def test_options_reach_trunk_and_adapter() -> None:
    model = build(frozen=True, checkpointing='full', drop_path_rate=0.3, patch_size=7, window_size=2, mode='extract',
                  out_indices=(1, 3), vit_features='stages', interaction_indexes=[[0, 0], [1, 1], [2, 2], [3, 3]])
    assert (model.frozen, model.checkpointing, model.spec.patch_size, model.windows[0]) == (True, 'full', 7, 2)
    assert model.blocks[-1].drop_path.rate == pytest.approx(0.3)
    assert model.interactions[0].extractor.drop_path.rate == 0.3
    assert model.feature_info.strides == (8, 32) and model.options.mode == 'extract'
    model.init_weights()
    assert [one.shape[2:] for one in model(IMAGE)] == [(7, 9), (2, 3)]


@pytest.mark.parametrize(('options', 'message'), [
    ({'mode': 'extract'}, 'say frozen=True'),
    ({'return_cls': True}, 'the adapter gives maps alone'),
    ({'out_indices': 'stages'}, "out_indices 'stages' names maps of a trunk"),
    ({'dtype': 'fp16'}, "Unknown dtype 'fp16'"),
    ({'cffn': 0.25}, "Unknown backbone option 'cffn'")])
def test_mistakes_in_a_config_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build(**options)
    assert message in str(error.value)


def test_options_of_a_config_are_checked_before_a_run() -> None:
    good = ['model.backbone.type=InternViTAdapter', 'model.backbone.conv_inplane=8', 'model.backbone.window_size=4',
            'model.backbone.cls_token=False', 'model.neck=None']
    wrong = "Unknown option of model.backbone 'conv_inplan'. Did you mean 'conv_inplane'?"
    for options, expected in ((good, []), ([*good, 'model.backbone.conv_inplan=8'], [wrong])):
        config = load_config(Namespace(config='demo/upernet_internvit_debug_demo', cfg_options=options))
        assert [problem.message for problem in config_problems(config)] == expected


def test_memory_that_was_never_filled_is_not_a_model() -> None:
    model = build()
    with pytest.raises(UserError, match=r'no weights yet: call init_weights\(\)'):
        model(IMAGE)
    with torch.device('meta'):
        maps = build()(IMAGE.to('meta'))
    assert [tuple(one.shape[2:]) for one in maps] == [(13, 18), (7, 9), (4, 5), (2, 3)]


@pytest.mark.parametrize('published', [False, True])
def test_init_weights_fills_the_trunk_and_draws_the_adapter(weights: pathlib.Path, published: bool) -> None:
    model = build(weights=str(weights), published=published, init_values=0.1)
    model.init_weights()
    saved = torch.load(weights, weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in trunk_parameters(model).items())
    assert model.interactions[0].injector.gamma.eq(0.1).all() and model.spm.stem[1].weight.eq(1).all()
    assert all(one.isfinite().all() for one in model(IMAGE))


def test_a_bf16_trunk_carries_an_fp32_adapter() -> None:
    model = build(dtype='bf16', frozen=True)
    model.init_weights()
    assert {p.dtype for p in trunk_parameters(model).values()} == {torch.bfloat16}
    assert {value.dtype for value in own(model).values()} == {torch.float32}
    assert {one.dtype for one in model(IMAGE)} == {torch.float32}


def test_it_is_the_trunk_of_its_model() -> None:
    model = nn.ModuleDict({'backbone': build(frozen=True)})
    found = find_trunk(model)
    assert found is not None and found[0] == 'backbone.' and isinstance(found[1], InternViTBackbone)
    assert trunk_and_depth(model) == ('backbone.', 4)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {f'backbone.{name}' for name in own(model['backbone'])}


def saved_without_trunk(model: nn.Module) -> dict[str, Any]:
    checkpoint = {'state_dict': dict(model.state_dict()), 'meta': {checkpoint_meta.KEY: {'format': 2}}}
    frozen_trunk.trim(checkpoint, model)
    return checkpoint


def test_a_checkpoint_leaves_the_frozen_trunk_out_and_keeps_the_adapter(weights: pathlib.Path) -> None:
    model = nn.ModuleDict({'backbone': build(weights=str(weights), frozen=True), 'head': nn.Linear(8, 2)})
    model['backbone'].init_weights()
    checkpoint = saved_without_trunk(model)
    names = {f'backbone.{name}' for name in own(model['backbone'])} | {'head.weight', 'head.bias'}
    assert checkpoint['state_dict'].keys() == names
    record = checkpoint['meta'][checkpoint_meta.KEY]['trunk']
    assert record == {'prefix': 'backbone.', **Origin(weights).as_dict()}

    other = nn.ModuleDict({'backbone': build(weights=str(weights), frozen=True), 'head': nn.Linear(8, 2)})
    frozen_trunk.complete(checkpoint, other, 'this file')
    other.load_state_dict(checkpoint['state_dict'])
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_loaders_of_other_software_get_the_trunk_too(weights: pathlib.Path) -> None:
    model = nn.ModuleDict({'backbone': build(weights=str(weights), frozen=True, init_values=0.5)})
    model['backbone'].init_weights()
    checkpoint = saved_without_trunk(model)
    frozen_trunk.announce(checkpoint, 'this file')
    other = nn.ModuleDict({'backbone': build(weights=str(weights), frozen=True)})
    other.load_state_dict(checkpoint['state_dict'])
    other['backbone'](IMAGE)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


@pytest.mark.parametrize('absent', ['spm.fc1.weight', 'blocks.2.ls1.gamma', 'level_embed'])
def test_a_state_that_lacks_one_key_does_not_fill_it(absent: str) -> None:
    source, model = build(), build()
    source.init_weights()
    state = source.state_dict()
    model.load_state_dict({key: value for key, value in state.items() if key != absent}, strict=False)
    with pytest.raises(UserError, match='no weights yet'):
        model(IMAGE)
    model.load_state_dict(state)
    model(IMAGE)


def test_numerics_choose_the_published_class_unless_the_config_does() -> None:
    given = {'type': 'InternViTAdapter', 'variant': 'internvit_debug'}
    assert complete_backbone(given, PUBLISHED)['published'] is True
    assert complete_backbone(given, FAST)['published'] is False
    assert complete_backbone({**given, 'published': False}, PUBLISHED)['published'] is False
    other = {'type': 'InternViT', 'variant': 'internvit_debug'}
    assert complete_backbone(other, PUBLISHED) == other
