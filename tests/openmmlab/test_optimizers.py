"""Optimizers built from configs: groups by layer, bf16 autocast without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import internvl_dense.openmmlab  # noqa: F401  registers the constructor
from internvl_dense.errors import UserError
from internvl_dense.openmmlab.optimizers import Bf16OptimWrapper, trunk_and_depth

BACKBONE = {'type': 'InternViT', 'variant': 'internvit_debug', 'weights': 'random', 'embed_dim': 8, 'num_heads': 2,
            'image_size': 28}
DEPTH = 4


class Model(BaseModel):
    """A trunk and a head."""

    def __init__(self, *trunks: dict[str, Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(MODELS.build({**BACKBONE, **trunk}) for trunk in trunks)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.parts[0](inputs)[-1]).float().square().mean()


class Wrapped(nn.parallel.DistributedDataParallel):
    """A distributed wrapper as mmengine knows it, without its processes."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self.module = module


def wrapper_config(type_: str = 'OptimWrapper', **paramwise: Any) -> dict[str, Any]:
    return {'type': type_, 'constructor': 'LayerDecayConstructor', 'paramwise_cfg': paramwise,
            'optimizer': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0.1}}


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmseg')


def test_groups_reach_the_optimizer_with_their_rates_and_names() -> None:
    wrapper = build_optim_wrapper(Model({}), wrapper_config(layer_decay_rate=0.5))
    groups = {group['group_name']: group for group in wrapper.optimizer.param_groups}
    assert len(groups) == 2 * (DEPTH + 2)
    assert groups['layer_0_decay']['lr'] == pytest.approx(1e-3 * 0.5**5)
    assert groups['layer_0_decay']['lr_scale'] == pytest.approx(0.5**5)
    assert groups['layer_0_decay']['param_names'] == ['parts.0.patch_embed.proj.weight']
    assert groups['layer_4_no_decay']['lr'] == pytest.approx(1e-3 * 0.5)
    assert groups['layer_5_decay']['param_names'] == ['head.weight']
    assert groups['layer_5_decay']['weight_decay'] == 0.1
    assert groups['layer_5_no_decay']['weight_decay'] == 0.0


def test_depth_is_asked_from_the_backbone() -> None:
    wrapper = build_optim_wrapper(Model({'depth': 2}), wrapper_config(layer_decay_rate=0.5))
    assert wrapper.optimizer.param_groups[0]['lr'] == pytest.approx(1e-3 * 0.5**3)
    assert trunk_and_depth(Model({'depth': 2})) == ('parts.0.', 2)
    assert trunk_and_depth(MODELS.build(BACKBONE)) == ('', DEPTH)


def test_by_default_all_layers_have_the_base_rate_and_tokens_do_not_decay() -> None:
    groups = build_optim_wrapper(Model({}), wrapper_config()).optimizer.param_groups
    assert {group['lr'] for group in groups} == {1e-3}
    published = build_optim_wrapper(Model({}), wrapper_config(decay_tokens=True)).optimizer.param_groups
    tokens = {'parts.0.pos_embed', 'parts.0.cls_token'}
    for found, decay in ((groups, 0.0), (published, 0.1)):
        decays = {name: group['weight_decay'] for group in found for name in group['param_names']}
        assert {decays[name] for name in tokens} == {decay}


def test_a_frozen_trunk_is_not_in_the_optimizer() -> None:
    wrapper = build_optim_wrapper(Model({'frozen': True}), wrapper_config())
    names = [name for group in wrapper.optimizer.param_groups for name in group['param_names']]
    assert sorted(names) == ['head.bias', 'head.weight']


def test_a_wrapped_model_has_the_same_groups() -> None:
    plain = build_optim_wrapper(Model({}), wrapper_config(layer_decay_rate=0.5))
    wrapped = build_optim_wrapper(Wrapped(Model({})), wrapper_config(layer_decay_rate=0.5))
    for ours, expected in zip(wrapped.optimizer.param_groups, plain.optimizer.param_groups, strict=True):
        assert (ours['group_name'], ours['param_names']) == (expected['group_name'], expected['param_names'])


def test_a_config_can_be_built_twice() -> None:
    config = wrapper_config(layer_decay_rate=0.5)
    counts = {len(build_optim_wrapper(Model({}), config).optimizer.param_groups) for _ in range(2)}
    assert counts == {2 * (DEPTH + 2)}


@pytest.mark.parametrize(
    ('trunks', 'paramwise', 'message'),
    [
        ([{}], {'layer_decay_rat': 0.9}, "Unknown option 'layer_decay_rat'. Did you mean 'layer_decay_rate'?"),
        ([{}], {'num_layers': 48, 'custom_keys': {}}, '2 problems'),
        ([], {}, 'needs one InternViT in the model, found 0'),
        ([{}, {}], {}, 'needs one InternViT in the model, found 2'),
    ],
)
def test_mistakes_are_explained(trunks: list[dict[str, Any]], paramwise: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build_optim_wrapper(Model(*trunks), wrapper_config(**paramwise))
    assert message in str(error.value)


def test_bf16_wrapper_runs_under_autocast_and_updates_fp32_weights() -> None:
    model = Model({})
    model.parts[0].init_weights()
    wrapper = build_optim_wrapper(model, wrapper_config('Bf16OptimWrapper'))
    assert isinstance(wrapper, Bf16OptimWrapper)
    products: list[torch.dtype] = []
    model.head.register_forward_hook(lambda module, args, output: products.append(output.dtype))
    before = model.head.weight.detach().clone()
    with wrapper.optim_context(model):
        loss = model(torch.randn(2, 3, 28, 28))
    assert products == [torch.bfloat16]
    assert not torch.is_autocast_enabled('cpu')
    wrapper.update_params(loss)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not torch.equal(model.head.weight, before)


def test_bf16_wrapper_accumulates_like_the_plain_one() -> None:
    model = Model({})
    model.parts[0].init_weights()
    wrapper = build_optim_wrapper(model, {**wrapper_config('Bf16OptimWrapper'), 'accumulative_counts': 2})
    wrapper.initialize_count_status(model, 0, 4)
    changed = []
    for _ in range(4):
        before = model.head.weight.detach().clone()
        with wrapper.optim_context(model):
            loss = model(torch.randn(2, 3, 28, 28))
        wrapper.update_params(loss)
        changed.append(not torch.equal(model.head.weight, before))
    assert changed == [False, True, False, True]
