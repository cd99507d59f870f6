"""InternViT in the shape of a backbone of transformers, without that library."""

from __future__ import annotations

import pytest
import torch

from internvl_dense import create_backbone
from internvl_dense.backbones.hf_door import BackboneMaps, InternViTHFBackbone
from internvl_dense.errors import UserError

IMAGE = torch.randn(2, 3, 56, 70, generator=torch.Generator().manual_seed(0))  # 4 x 5 patches


@pytest.fixture(scope='module')
def backbone() -> InternViTHFBackbone:
    return InternViTHFBackbone.from_variant('internvit_debug', out_features=['stage2', 'stage4']).eval()


def test_what_a_head_asks(backbone):
    assert backbone.channels == [128, 128]
    assert backbone.stage_names == ['stem', 'stage1', 'stage2', 'stage3', 'stage4']
    assert (backbone.out_features, backbone.out_indices) == (['stage2', 'stage4'], [2, 4])
    assert backbone.out_feature_channels['stage3'] == backbone.num_features[3] == 128
    assert [backbone.stage_names[index] for index in backbone.out_indices] == backbone.out_features
    assert backbone.trunk.out_indices == (1, 3)


def test_the_config_has_the_geometry(backbone):
    config = backbone.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (128, 4, 4)
    assert (config.intermediate_size, config.image_size, config.patch_size, config.num_channels) == (512, 140, 14, 3)
    assert config.to_dict()['out_features'] == ['stage2', 'stage4']


def test_maps_are_those_of_the_trunk(backbone):
    expected = backbone.trunk(IMAGE)
    maps = backbone(IMAGE).feature_maps
    assert isinstance(maps, tuple) and [tuple(x.shape) for x in maps] == [(2, 128, 4, 5)] * 2
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps, expected, strict=True))
    assert set(backbone.state_dict()) == {f'trunk.{key}' for key in backbone.trunk.state_dict()}


def test_hidden_states_are_the_embeddings_and_each_block(backbone):
    outputs = backbone(IMAGE, output_hidden_states=True)
    assert [tuple(x.shape) for x in outputs.hidden_states] == [(2, 21, 128)] * 5
    embeddings, grid = backbone.trunk._embed(IMAGE)
    assert grid == (4, 5) and torch.equal(outputs.hidden_states[0], embeddings)
    for index, x_BChw in zip(backbone.out_indices, outputs.feature_maps, strict=True):
        assert torch.equal(outputs.hidden_states[index][:, 1:].mT.unflatten(2, grid), x_BChw)


def test_hidden_states_of_windowed_blocks_are_whole_and_in_order():
    model = InternViTHFBackbone.from_variant('internvit_debug', window_size=2, global_blocks=(3,)).eval()
    outputs = model(IMAGE, output_hidden_states=True)
    patches = outputs.hidden_states[2][:, 1:].mT.unflatten(2, (4, 5))
    assert torch.equal(patches, outputs.feature_maps[1])


def test_no_hook_stays_behind(backbone):
    with pytest.raises(RuntimeError):
        backbone(torch.randn(1, 5, 56, 70), output_hidden_states=True)
    assert backbone(IMAGE).hidden_states is None
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in backbone.trunk.blocks)


def test_gradients_pass_with_checkpointing():
    model = InternViTHFBackbone.from_variant('internvit_debug', checkpointing='full')
    outputs = model(IMAGE, output_hidden_states=True)
    outputs.hidden_states[-1].square().mean().backward()
    assert model.trunk.patch_embed.proj.weight.grad.abs().sum() > 0


def test_outputs_by_attribute_name_and_position(backbone):
    outputs = backbone(IMAGE, output_hidden_states=True)
    assert outputs[0] is outputs['feature_maps'] is outputs.feature_maps
    assert outputs[1] is outputs['hidden_states'] and outputs[1:] == (outputs.hidden_states,)
    assert list(outputs) == ['feature_maps', 'hidden_states'] and 'attentions' not in outputs
    assert outputs.attentions is None and outputs.get('attentions') is None
    short = backbone(IMAGE)
    assert isinstance(short, BackboneMaps) and len(short) == 1 and short[1:] == ()
    with pytest.raises(KeyError):
        short['hidden_states']
    with pytest.raises(IndexError):
        short[1]


def test_a_plain_tuple(backbone):
    maps, states = backbone(IMAGE, output_hidden_states=True, return_dict=False)
    assert len(maps) == 2 and len(states) == 5


def test_unknown_arguments_are_left_out_and_attention_is_refused(backbone):
    outputs = backbone.forward_with_filtered_kwargs(IMAGE, output_attentions=False, interpolate_pos_encoding=True)
    assert len(outputs.feature_maps) == 2
    with pytest.raises(UserError, match='attention maps are not kept'):
        backbone.forward_with_filtered_kwargs(IMAGE, output_attentions=True)


def test_tokens_instead_of_maps():
    trunk = create_backbone('internvit_debug', num_register_tokens=2, out_indices='last').eval()
    whole = InternViTHFBackbone(trunk)
    tokens = InternViTHFBackbone(trunk, reshape_hidden_states=False)(IMAGE).feature_maps[0]
    every = whole(IMAGE, output_hidden_states=True).hidden_states[-1]
    assert every.shape == (2, 23, 128)
    assert torch.equal(tokens, torch.cat([every[:, :1], every[:, 3:]], dim=1))


def test_default_outputs_are_the_stages():
    model = InternViTHFBackbone.from_variant('internvit_debug', depth=8, device='meta')
    assert model.out_indices == [index + 1 for index in model.trunk.spec.stage_indices]
    assert model(torch.empty(1, 3, 28, 28, device='meta')).feature_maps[0].shape == (1, 128, 2, 2)


@pytest.mark.parametrize(('options', 'message'), [
    ({'out_features': ['stage5', 'stem']}, r"2 problems(.|\n)*Unknown stage 'stage5'(.|\n)*'stem'"),
    ({'out_features': ['stage2'], 'out_indices': 'last'}, 'not both'),
    ({'out_features': ['stage2', 'stage1']}, 'do not increase'),
    ({'return_cls': True}, 'reshape_hidden_states=False'),
    ({'cls_token': False, 'reshape_hidden_states': False}, 'needs a class token'),
    ({'varient': 1}, "Unknown backbone option 'varient'"),
])
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        InternViTHFBackbone.from_variant('internvit_debug', device='meta', **options)
