"""Optimizer groups and parameter counts of the full-size reference configs, without memory for a parameter."""

from __future__ import annotations

import functools
import re
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest
from mmengine.config import Config
from torch import nn

import internvl_dense.openmmlab  # noqa: F401  before mmseg
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.launch import build_model_on_meta
from internvl_dense.openmmlab.optimizers import trunk_and_depth
from internvl_dense.openmmlab.summary import count_parameters
from internvl_dense.training.layer_decay import ParameterGroup, layer_decay_groups

Golden = Callable[[str], Any]
FULL = 'ade20k/full_tuning_internvit_6b_224px_ade20k'
# Case of the data file -> config and options of the command line.
CASES = {
    'upernet_full_depth48': (FULL, ()),
    'upernet_full_depth45': (FULL, ('model.backbone.variant=internvit_6b_448px_v1_2',)),
    'linear_frozen': ('ade20k/linear_probing_internvit_6b_224px_ade20k', ()),
    'upernet_frozen': ('ade20k/head_tuning_internvit_6b_224px_ade20k', ()),
    'adapter_depth48': ('ade20k/vit_adapter_internvit_6b_224px_ade20k', ()),
}
TOKENS = {'backbone.pos_embed', 'backbone.cls_token'}


@functools.cache
def build(config: str, options: tuple[str, ...]) -> tuple[Config, nn.Module]:
    loaded = load_config(Namespace(config=config, cfg_options=list(options)))
    return loaded, build_model_on_meta(loaded)


def groups_of(name: str, decay_tokens: bool) -> tuple[list[ParameterGroup], float]:
    """Groups of a case and the base learning rate, with the rates that its config names."""
    config, model = build(*CASES[name])
    trunk, depth = trunk_and_depth(model)
    wrapper = config.optim_wrapper
    groups = layer_decay_groups(
        model.named_parameters(), trunk=trunk, depth=depth, rate=wrapper.paramwise_cfg.layer_decay_rate,
        weight_decay=wrapper.optimizer.weight_decay, decay_tokens=decay_tokens,
    )
    return groups, wrapper.optimizer.lr


def our_name(name: str) -> str:
    """The published pyramid is part of the backbone, ours is the neck."""
    return re.sub(r'^backbone\.up(?=\d)', 'neck.up', name)  # `backbone.up` without a number is the adapter\'s


@pytest.mark.parametrize('name', CASES)
def test_every_parameter_has_the_published_group(golden: Golden, name: str) -> None:
    case = golden('layer_decay')['cases'][name]
    groups, base_lr = groups_of(name, decay_tokens=True)
    ours = {
        parameter: (group.name, group.lr_scale, group.lr_scale * base_lr, group.weight_decay)
        for group in groups for parameter in group.param_names
    }
    published = {
        our_name(parameter): (row['group'], row['lr_scale'], row['lr'], row['weight_decay'])
        for parameter, row in case['table'].items()
    }
    assert ours == published
    assert [(group.name, len(group.params)) for group in groups] == [
        (group['group_name'], group['n_params']) for group in case['groups']
    ]


@pytest.mark.parametrize('name', CASES)
def test_names_shapes_and_what_trains_are_the_published_ones(golden: Golden, name: str) -> None:
    case = golden('layer_decay')['cases'][name]
    _, model = build(*CASES[name])
    parameters = dict(model.named_parameters())
    assert {key: tuple(p.shape) for key, p in parameters.items()} == {
        our_name(key): tuple(shape) for key, shape in case['shapes'].items()
    }
    assert {key: p.requires_grad for key, p in parameters.items()} == {
        our_name(key): flag for key, flag in case['requires_grad'].items()
    }
    assert count_parameters(model) == (case['n_params_total_no_aux'], case['n_params_trainable_no_aux'])


@pytest.mark.parametrize('name', ['upernet_full_depth48', 'upernet_full_depth45'])
def test_by_default_only_the_tokens_lose_their_weight_decay(golden: Golden, name: str) -> None:
    table = golden('layer_decay')['cases'][name]['table']
    groups, _ = groups_of(name, decay_tokens=False)
    ours = {parameter: group for group in groups for parameter in group.param_names}
    changed = {key for key, row in table.items() if ours[our_name(key)].weight_decay != row['weight_decay']}
    assert changed == TOKENS
    assert all(ours[our_name(key)].lr_scale == row['lr_scale'] for key, row in table.items())
    assert {ours[key].name for key in TOKENS} == {'layer_0_no_decay'}
