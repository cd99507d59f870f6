"""The trunk and its pyramid as one backbone: maps, keys, training beside a frozen trunk."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.registry import MODELS

import internvl_dense.openmmlab  # noqa: F401
from internvl_dense.backbones.create import create_backbone
from internvl_dense.backbones.trunk_keys import is_trunk_key
from internvl_dense.dense.pyramid import ViTFeaturePyramid
from internvl_dense.errors import UserError

SMALL = {'variant': 'internvit_debug', 'embed_dim': 16, 'num_heads': 2, 'weights': 'random'}


def build(**options):
    torch.manual_seed(0)
    module = MODELS.build({'type': 'InternViTPyramid', **SMALL, **options})
    module.init_weights()
    return module.eval()


@pytest.mark.parametrize('patch', [14, 16])
def test_maps_have_the_strides_that_are_announced(patch):
    module = build(patch_size=patch)
    maps = module(torch.randn(2, 3, 6 * patch, 4 * patch))
    assert module.feature_info.strides == (patch / 4, patch / 2, patch, 2 * patch)
    assert module.feature_info.channels == (16,) * 4 and module.feature_info.indices == (3,) * 4
    assert [tuple(x.shape[2:]) for x in maps] == [(24, 16), (12, 8), (6, 4), (3, 2)]


@pytest.mark.parametrize('out_indices', ['last', 'stages'])
def test_it_is_the_trunk_followed_by_the_pyramid(out_indices):
    module = build(out_indices=out_indices)
    state = module.state_dict()
    trunk = create_backbone('internvit_debug', embed_dim=16, num_heads=2, out_indices=out_indices)
    trunk.load_state_dict({key: value for key, value in state.items() if is_trunk_key(key)})
    pyramid = ViTFeaturePyramid(16)
    pyramid.load_state_dict({key: value for key, value in state.items() if not is_trunk_key(key)})
    image = torch.randn(1, 3, 56, 42)
    for ours, expected in zip(module(image), pyramid(trunk.eval()(image)), strict=True):
        assert torch.equal(ours, expected)


def test_keys_are_those_of_the_published_detector():
    prefixes = {key.partition('.')[0] for key in build().state_dict()}
    assert prefixes == {'pos_embed', 'cls_token', 'patch_embed', 'blocks', 'up1', 'up2'}


def test_levels_choose_maps():
    module = build(levels=(1, 3))
    assert module.feature_info.strides == (7, 28)
    assert [x.shape[-1] for x in module(torch.randn(1, 3, 56, 56))] == [8, 2]


def test_pyramid_learns_beside_a_frozen_trunk():
    module = build(frozen=True).train()
    sum(x.square().mean() for x in module(torch.randn(1, 3, 56, 56))).backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is None) == is_trunk_key(name), name


def test_a_copy_has_a_pyramid_of_its_own():
    module = build()
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.up2[0].weight.zero_()
    image = torch.randn(1, 3, 56, 56)
    assert not torch.equal(module(image)[1], other(image)[1])
    assert torch.equal(module(image)[2], other(image)[2])


def test_class_tokens_are_refused():
    with pytest.raises(UserError, match='return_cls'):
        build(return_cls=True)
