"""Optimizer groups by layer, and bf16 autocast that also works without a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from internvl_dense.errors import UserError, problems
from internvl_dense.openmmlab.strict_load import unwrap
from internvl_dense.openmmlab.trunks import find_trunks
from internvl_dense.registry import unknown
from internvl_dense.training.layer_decay import layer_decay_groups
from internvl_dense.training.numerics import FAST
from internvl_dense.training.precision import AUTOCAST_DTYPE

OPTIONS = ('layer_decay_rate', 'decay_tokens')


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """Runs the forward pass under bf16 autocast on whatever device the model is; no loss scaling is needed."""

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=AUTOCAST_DTYPE):
            yield


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor:
    """Builds an optimizer with layer-wise learning-rate decay; the depth is asked from the backbone.

    Args:
        optim_wrapper_cfg: Config of the wrapper, with `optimizer` in it.
        paramwise_cfg: `layer_decay_rate` (1.0 is none) and `decay_tokens` (weight decay on position embedding and class
            token; by default as the numerics of the model say).

    Raises:
        UserError: Unknown option.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        self.wrapper = dict(optim_wrapper_cfg)
        self.options = dict(paramwise_cfg or {})
        wrong = [unknown('option', key, OPTIONS) for key in self.options if key not in OPTIONS]
        if wrong:
            raise UserError(problems('optim_wrapper.paramwise_cfg', wrong))

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = unwrap(model)
        optimizer = dict(self.wrapper.pop('optimizer'))
        trunk, depth = trunk_and_depth(model)
        groups = layer_decay_groups(
            model.named_parameters(), trunk=trunk, depth=depth,
            rate=self.options.get('layer_decay_rate', 1.0), weight_decay=optimizer.get('weight_decay', 0.0),
            decay_tokens=self.options.get('decay_tokens', getattr(model, 'numerics', FAST).decay_tokens),
        )
        optimizer['params'] = [
            {'params': group.params, 'param_names': group.param_names, 'group_name': group.name,
             'lr_scale': group.lr_scale, 'lr': group.lr_scale * optimizer['lr'], 'weight_decay': group.weight_decay}
            for group in groups
        ]
        MMLogger.get_current_instance().info(f'{len(groups)} parameter groups over {depth} blocks')
        wrapper = {'type': 'OptimWrapper', **self.wrapper, 'optimizer': OPTIMIZERS.build(optimizer)}
        return OPTIM_WRAPPERS.build(wrapper)


def trunk_and_depth(model: nn.Module) -> tuple[str, int]:
    """Prefix and depth of the only InternViT in a model.

    Raises:
        UserError: The model holds none, or several.
    """
    found = find_trunks(model)
    if len(found) != 1:
        raise UserError(f'layer-wise learning-rate decay needs one InternViT in the model, found {len(found)}')
    prefix, module = found[0]
    return prefix, module.depth
