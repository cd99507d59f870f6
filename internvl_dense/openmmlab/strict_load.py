"""Loads the state of a whole model, or says what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from internvl_dense.errors import UserError, problems

SHOWN = 8
# Older checkpoints keep the pyramid inside the backbone.
LEGACY_PREFIXES = {f'backbone.up{i}.': f'neck.up{i}.' for i in range(1, 5)}


def rename_legacy(key: str) -> str:
    """Today's name of a key of a published segmentor, or of a wrapped model."""
    key = key.removeprefix('module.')
    for old, new in LEGACY_PREFIXES.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside a distributed or test-time wrapper."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        inner = model.module
        assert isinstance(inner, nn.Module)
        model = inner
    return model


def load_model_state(
    model: nn.Module, state_dict: Mapping[str, torch.Tensor], source: str = 'the checkpoint'
) -> None:
    """Copies a state into a model; every key and every shape must fit.

    Args:
        model: The model, or its distributed wrapper.
        state_dict: From a checkpoint; names of published segmentors are translated.
        source: What an error calls the checkpoint.

    Raises:
        UserError: Missing or unexpected keys, or other shapes; all are listed at once.
    """
    model = unwrap(model)
    state = {rename_legacy(key): value for key, value in state_dict.items()}
    own = model.state_dict()
    faults = [
        *_keys('missing in the checkpoint', own.keys() - state.keys()),
        *_keys('unknown to the model', state.keys() - own.keys()),
        *_keys('of other shapes', (_shapes(key, state[key], own[key]) for key in own.keys() & state.keys()
                                   if _shape(state[key]) != _shape(own[key]))),
    ]
    if faults:
        raise UserError(problems(f'{source} does not fit the model of this config', faults))
    model.load_state_dict(state)


def _shape(value: object) -> tuple[int, ...] | None:
    """None for what is no tensor, as in a file that nests its tensors deeper."""
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _shapes(key: str, found: object, own: torch.Tensor) -> str:
    return f'{key} (file {_shape(found)}, model {tuple(own.shape)})'


def _keys(what: str, keys: Iterable[str]) -> list[str]:
    names = sorted(keys)
    if not names:
        return []
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return [f'{len(names)} {what}: {", ".join(names[:SHOWN])}{more}']
