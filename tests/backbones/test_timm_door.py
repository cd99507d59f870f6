"""InternViT in the shape of a features-only model of timm."""

from __future__ import annotations

import pytest
import torch

from internvl_dense import list_backbones
from internvl_dense.backbones.timm_door import InternViTFeatures
from internvl_dense.errors import UserError


@pytest.fixture(scope='module')
def features() -> InternViTFeatures:
    return InternViTFeatures.from_variant('internvit_debug', out_indices=(1, 3)).eval()


def test_feature_info(features):
    info = features.feature_info
    assert info.channels() == [128, 128] and info.channels(0) == 128 and info.channels([0, 1, 2]) == [128] * 3
    assert info.reduction() == [14, 14] and info.reduction(2) == 14
    assert info.module_name() == ['trunk.blocks.1', 'trunk.blocks.3'] and info.module_name(0) == 'trunk.blocks.0'
    assert info.out_indices == features.out_indices == (1, 3)
    assert info.get_dicts(['index', 'reduction']) == [{'index': 1, 'reduction': 14}, {'index': 3, 'reduction': 14}]
    assert info.get_dicts(idx=[2]) == [info[2]] and info.get_dicts(['index'], idx=2) == {'index': 2}
    assert len(info) == 4 and [row['index'] for row in info] == [0, 1, 2, 3]


def test_rows_name_modules(features):
    for row in features.feature_info:
        assert features.get_submodule(row['module']) is features.trunk.blocks[row['index']]


def test_maps_are_those_of_the_trunk_and_as_announced(features):
    image = torch.randn(2, 3, 56, 70)
    maps = features(image)
    assert isinstance(maps, list)
    info = features.feature_info
    for x_BChw, channels, stride in zip(maps, info.channels(), info.reduction(), strict=True):
        assert x_BChw.shape == (2, channels, 56 // stride, 70 // stride)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps, features.trunk(image), strict=True))
    assert set(features.state_dict()) == {f'trunk.{key}' for key in features.trunk.state_dict()}


@pytest.mark.parametrize('name', list_backbones())
def test_preprocessing(name):
    model = InternViTFeatures.from_variant(name, device='meta')
    config = model.default_cfg
    assert config is model.pretrained_cfg
    assert (config['mean'], config['std']) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # ImageNet's, in 0..1
    assert config['input_size'] == (3, model.trunk.spec.image_size, model.trunk.spec.image_size)
    assert model.get_submodule(config['first_conv']) is model.trunk.patch_embed.proj
    assert model.num_features == model.feature_info.channels(-1)


def test_class_tokens_do_not_fit():
    with pytest.raises(UserError, match='return_cls'):
        InternViTFeatures.from_variant('internvit_debug', return_cls=True, device='meta')
