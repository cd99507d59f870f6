from __future__ import annotations

import pytest
import torch

from internvl_dense.backbones.dialects import (
    CHAT,
    DIALECTS,
    HF,
    OFFICIAL,
    SEGMENTOR,
    TIMM,
    TRANSFORMERS,
    WRAPPERS,
    Slot,
    find_layout,
    split_segmentor,
    to_foreign,
)
from internvl_dense.errors import UserError
from tests.checkpoints import LAYER_SPEC, SPEC, random_state

CASES = [(dialect, prefix) for dialect in DIALECTS.values() for prefix in dialect.prefixes]
IDS = [f'{dialect.name}:{prefix}' for dialect, prefix in CASES]

# Spelled out, so that a slip in a table cannot hide in both directions at once.
HF_NAMES = {
    'cls_token': 'embeddings.class_embedding',
    'pos_embed': 'embeddings.position_embedding',
    'patch_embed.proj.weight': 'embeddings.patch_embedding.weight',
    'patch_embed.proj.bias': 'embeddings.patch_embedding.bias',
    'blocks.2.norm1.weight': 'encoder.layers.2.norm1.weight',
    'blocks.2.attn.qkv.weight': 'encoder.layers.2.attn.qkv.weight',
    'blocks.2.attn.q_norm.weight': 'encoder.layers.2.attn.q_norm.weight',
    'blocks.2.attn.proj.bias': 'encoder.layers.2.attn.proj.bias',
    'blocks.2.ls1.gamma': 'encoder.layers.2.ls1',
    'blocks.2.ls2.gamma': 'encoder.layers.2.ls2',
    'blocks.2.mlp.fc1.weight': 'encoder.layers.2.mlp.fc1.weight',
}
TRANSFORMERS_NAMES = {
    'cls_token': 'embeddings.cls_token',
    'pos_embed': 'embeddings.position_embeddings',
    'patch_embed.proj.weight': 'embeddings.patch_embeddings.projection.weight',
    'blocks.2.norm1.weight': 'encoder.layer.2.layernorm_before.weight',
    'blocks.2.norm2.bias': 'encoder.layer.2.layernorm_after.bias',
    'blocks.2.attn.k_norm.weight': 'encoder.layer.2.attention.k_norm.weight',
    'blocks.2.attn.proj.bias': 'encoder.layer.2.attention.projection_layer.bias',
    'blocks.2.ls1.gamma': 'encoder.layer.2.lambda_1',
    'blocks.2.ls2.gamma': 'encoder.layer.2.lambda_2',
    'blocks.2.mlp.fc2.bias': 'encoder.layer.2.mlp.fc2.bias',
}


@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('spec', [SPEC, LAYER_SPEC], ids=lambda spec: spec.name)
@pytest.mark.parametrize(('dialect', 'prefix'), CASES, ids=IDS)
def test_round_trip(dialect, prefix, spec, wrapper):
    state = random_state(spec)
    foreign = to_foreign(state, dialect, wrapper + prefix)
    layout = find_layout(foreign)
    assert layout.prefix == wrapper + prefix
    back = {key: torch.full_like(value, torch.nan) for key, value in state.items()}
    for key, value in foreign.items():
        slot = layout.to_native(key)
        slot.view(back[slot.key]).copy_(value)
    assert all(torch.equal(back[key], value) for key, value in state.items())


@pytest.mark.parametrize(('dialect', 'prefix'), CASES, ids=IDS)
def test_exactly_one_dialect_is_detected(dialect, prefix):
    foreign = to_foreign(random_state(SPEC), dialect, prefix)
    detected = [row.name for row in DIALECTS.values() if row.detect(foreign)]
    # A timm checkpoint without head is an official one key by key.
    assert detected == ['official' if (dialect, prefix) == (TIMM, '') else dialect.name]


@pytest.mark.parametrize(('dialect', 'names'), [(HF, HF_NAMES), (CHAT, HF_NAMES), (TRANSFORMERS, TRANSFORMERS_NAMES)])
def test_published_names(dialect, names):
    for native, foreign in names.items():
        assert dialect.to_native(foreign) == Slot(native)
        assert dialect.to_foreign(native) == [(foreign, Slot(native))]


@pytest.mark.parametrize('end', ['weight', 'bias'])
def test_qkv_is_split_into_q_k_v_in_this_order(end):
    fused = torch.arange(9.0).reshape(9, 1)
    split = to_foreign({f'blocks.1.attn.qkv.{end}': fused}, TRANSFORMERS)
    names = [f'encoder.layer.1.attention.{letter}_proj.{end}' for letter in 'qkv']
    assert list(split) == names
    assert [split[name].flatten().tolist() for name in names] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize('key', ['blocks.x.norm1.weight', 'encoder.layers.0', 'text.blocks.0.norm1.weight', ''])
def test_other_keys_are_no_trunk(key):
    assert all(dialect.to_native(key) is None for dialect in DIALECTS.values())


@pytest.mark.parametrize('keys', [[], ['conv1.weight', 'layer1.0.bn1.weight', 'fc.bias']])
def test_no_layout_for_another_model(keys):
    assert find_layout(keys) is None


def test_key_without_a_name_in_the_dialect():
    with pytest.raises(UserError, match="'register_tokens' has no name in the dialect 'hf'"):
        to_foreign({'register_tokens': torch.zeros(1, 4, 8)}, HF)


@pytest.mark.parametrize(('dialect', 'prefix', 'key', 'known'), [
    (OFFICIAL, '', 'clip_projector.norm1_q.weight', True),
    (OFFICIAL, '', 'transformer.layers.0.self_attn.q_proj.weight', True),
    (OFFICIAL, 'module.', 'module.head.weight', True),
    (OFFICIAL, '', 'adapter.weight', False),
    (CHAT, 'vision_model.', 'language_model.model.layers.0.mlp.up_proj.weight', True),
    (CHAT, 'vision_model.', 'qllama.lm_head.weight', True),
    (CHAT, 'vision_model.', 'mlp1.0.weight', True),
    (CHAT, 'vision_model.', 'vision_model.adapter.weight', False),
    (TRANSFORMERS, 'model.vision_tower.', 'model.vision_tower.embeddings.mask_token', True),
    (TRANSFORMERS, '', 'norm.weight', True),
    (SEGMENTOR, 'backbone.', 'backbone.up1.0.weight', True),
    (SEGMENTOR, 'backbone.', 'backbone.level_embed', True),
    (SEGMENTOR, 'module.backbone.', 'module.decode_head.conv_seg.weight', True),
    (SEGMENTOR, 'backbone.', 'backbone.up5.0.weight', False),
])
def test_what_each_dialect_knows_beside_the_trunk(dialect, prefix, key, known):
    foreign = to_foreign(random_state(SPEC), dialect, prefix)
    layout = find_layout([*foreign, key])
    assert layout.dialect is dialect
    assert layout.is_known_unused(key) is known


def test_split_segmentor():
    keys = [
        'backbone.blocks.0.norm1.weight', 'backbone.pos_embed', 'backbone.up1.0.weight', 'neck.up4.1.bias',
        'backbone.spm.fc1.weight', 'backbone.norm1.weight', 'decode_head.conv_seg.bias', 'auxiliary_head.convs.0.w',
        'neck.lateral_convs.0.conv.weight',
    ]
    parts = split_segmentor({key: key for key in keys})
    assert {part: list(content) for part, content in parts.items()} == {
        'backbone': ['blocks.0.norm1.weight', 'pos_embed'],
        'pyramid': ['up1.0.weight', 'up4.1.bias'],
        'adapter': ['spm.fc1.weight', 'norm1.weight'],
        'decode_head': ['conv_seg.bias'],
        'auxiliary_head': ['convs.0.w'],
        'neck': ['lateral_convs.0.conv.weight'],
    }
    assert parts['pyramid']['up4.1.bias'] == 'neck.up4.1.bias'


def test_split_segmentor_of_a_bare_backbone():
    with pytest.raises(UserError, match="'cls_token' belongs to no part of a segmentor"):
        split_segmentor({'cls_token': 0})
