"""Optimizer groups on a small model; the full-size tables are compared in tests/parity."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from internvl_dense.backbones.create import create_backbone
from internvl_dense.training.layer_decay import EMBEDDINGS, layer_decay_groups, layer_id

DEPTH = 4
RATE = 0.5


class Model(nn.Module):
    """A trunk behind any name, and a head."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.trunk = create_backbone('internvit_debug', embed_dim=8, num_heads=2, **options)
        self.head = nn.Conv2d(8, 3, 1)


def groups(model: nn.Module, **options: bool) -> dict[str, tuple[str, float, float]]:
    """Parameter name to (group, lr scale, weight decay)."""
    found = layer_decay_groups(
        model.named_parameters(), trunk='trunk.', depth=DEPTH, rate=RATE, weight_decay=0.1, **options)
    for group in found:
        named = dict(model.named_parameters())
        assert [id(p) for p in group.params] == [id(named[name]) for name in group.param_names]
    return {name: (group.name, group.lr_scale, group.weight_decay) for group in found for name in group.param_names}


@pytest.mark.parametrize(
    ('name', 'layer'),
    [
        ('trunk.pos_embed', 0), ('trunk.cls_token', 0), ('trunk.register_tokens', 0),
        ('trunk.patch_embed.proj.weight', 0), ('trunk.patch_embed.proj.bias', 0),
        ('trunk.blocks.0.attn.qkv.weight', 1), ('trunk.blocks.3.ls2.gamma', 4), ('trunk.blocks.11.norm1.weight', 12),
        ('trunk.norm.weight', 5), ('head.weight', 5), ('neck.up1.0.weight', 5), ('head.blocks.0.weight', 5),
        ('auxiliary.pos_embed', 5),
    ],
)
def test_layer_of_a_name(name: str, layer: int) -> None:
    assert layer_id(name, 'trunk.', DEPTH) == layer


def test_a_trunk_without_prefix() -> None:
    assert layer_id('pos_embed', '', DEPTH) == 0
    assert layer_id('blocks.1.norm1.weight', '', DEPTH) == 2
    assert layer_id('norm.weight', '', DEPTH) == 5


def test_every_parameter_is_in_one_group_with_its_rate() -> None:
    model = Model(final_norm=True, num_register_tokens=2)
    table = groups(model)
    assert table.keys() == dict(model.named_parameters()).keys()
    assert table['trunk.patch_embed.proj.weight'] == ('layer_0_decay', RATE**5, 0.1)
    assert table['trunk.patch_embed.proj.bias'] == ('layer_0_no_decay', RATE**5, 0.0)
    assert table['trunk.blocks.0.attn.qkv.weight'] == ('layer_1_decay', RATE**4, 0.1)
    assert table['trunk.blocks.3.ls1.gamma'] == ('layer_4_no_decay', RATE, 0.0)
    assert table['trunk.norm.weight'] == ('layer_5_no_decay', 1.0, 0.0)
    assert table['head.weight'] == ('layer_5_decay', 1.0, 0.1)
    assert table['head.bias'] == ('layer_5_no_decay', 1.0, 0.0)


def test_vectors_and_biases_never_decay() -> None:
    model = Model(norm='layer', qkv_bias=True)
    parameters = dict(model.named_parameters())
    for name, (_, _, decay) in groups(model, decay_tokens=True).items():
        assert (decay == 0) == (parameters[name].ndim == 1 or name.endswith('.bias')), name


def test_tokens_decay_only_when_asked_for() -> None:
    model = Model(num_register_tokens=2)
    tokens = {'trunk.pos_embed', 'trunk.cls_token', 'trunk.register_tokens'}
    without, with_ = groups(model), groups(model, decay_tokens=True)
    assert {name for name in without if without[name] != with_[name]} == tokens
    assert {without[name][2] for name in tokens} == {0.0}
    assert {with_[name][2] for name in tokens} == {0.1}


def test_frozen_parameters_are_left_out() -> None:
    assert groups(Model(frozen=True)).keys() == {'head.weight', 'head.bias'}
    unused = groups(Model(out_indices=[1]))
    assert not any(name.startswith(('trunk.blocks.2', 'trunk.blocks.3')) for name in unused)
    assert 'trunk.blocks.1.norm1.weight' in unused


def test_groups_are_in_order_of_registration_and_an_optimizer_takes_them() -> None:
    model = Model()
    found = layer_decay_groups(model.named_parameters(), trunk='trunk.', depth=DEPTH, rate=RATE, weight_decay=0.1)
    first = [group.param_names[0] for group in found]
    names = [name for name, _ in model.named_parameters()]
    assert sorted(first, key=names.index) == first
    options = [{'params': g.params, 'lr': g.lr_scale * 1e-3, 'weight_decay': g.weight_decay} for g in found]
    assert len(torch.optim.AdamW(options).param_groups) == len(found) == 2 * (DEPTH + 2)


def test_every_embedding_of_the_trunk_is_in_layer_0() -> None:
    model = create_backbone('internvit_debug', device='meta', num_register_tokens=1, final_norm=True)
    tops = {name.split('.')[0] for name, _ in model.named_parameters()}
    assert tops - set(EMBEDDINGS) == {'blocks', 'norm'}
