"""Loads the state of a whole model, or says what does not fit."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from internvl_dense.backbones.weight_files import shard_paths
from internvl_dense.backbones.weight_files import unwrap as unwrap_content
from internvl_dense.errors import UserError, problems
from internvl_dense.registry import unknown

SHOWN = 8
# Older checkpoints keep the pyramid inside the backbone.
LEGACY_PREFIXES = {f'backbone.up{i}.': f'neck.up{i}.' for i in range(1, 5)}
CLASSIFIER = 'conv_seg'  # mmseg's name for the layer of a head whose outputs are the classes
RESET = 'To train from it on other classes, start the layer of the classes afresh: --reset-head {heads}'


@dataclasses.dataclass(frozen=True)
class StateReport:
    """What loading a whole model did.

    Args:
        source: The checkpoint.
        parts: Tensors taken over by part, as in {'backbone': 580, 'decode_head': 12}.
        renamed: How many of them had the name of an older layout.
        reset: Prefixes that kept their initial values on request.
    """

    source: str
    parts: Mapping[str, int]
    renamed: int = 0
    reset: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f'{self.source}: {sum(self.parts.values())} tensors, every one fits ('
        text += ', '.join(f'{part} {count}' for part, count in self.parts.items()) + ')'
        if self.renamed:
            text += f'; {self.renamed} renamed from an older layout'
        return text + (f'; afresh: {", ".join(self.reset)}' if self.reset else '')


def checkpoint_file(path: str | os.PathLike[str]) -> str:
    """The one file of a whole model: the path itself, or what a folder such as DeepSpeed's holds.

    Raises:
        UserError: The folder holds no weights, or several files.
    """
    if not os.path.isdir(path):
        return os.fspath(path)
    files = shard_paths(os.fspath(path))
    if len(files) > 1:
        raise UserError(f'{path} holds {len(files)} files; a whole model is one file: name it')
    return str(files[0])


def state_of(checkpoint: Any, source: str) -> Mapping[str, Any]:
    """The state dict inside what a file holds: under `state_dict`, `module` (DeepSpeed) or `model`, or the whole.

    Raises:
        UserError: It is no mapping.
    """
    state, _ = unwrap_content(checkpoint)
    if not isinstance(state, Mapping):
        raise UserError(f'{source} holds {type(state).__name__}; expected a state dict (name -> tensor)')
    return state


def rename_legacy(key: str, own: Container[str] = ()) -> str:
    """Today's name of a key of a published segmentor, or of a wrapped model; names that a model has itself stay."""
    key = key.removeprefix('module.')
    for old, new in LEGACY_PREFIXES.items():
        if key.startswith(old) and key not in own:
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
    model: nn.Module, state_dict: Mapping[str, torch.Tensor], source: str = 'the checkpoint',
    reset_heads: Sequence[str] = (),
) -> StateReport:
    """Copies a state into a model; every key and every shape must fit.

    Args:
        model: The model, or its distributed wrapper.
        state_dict: From a checkpoint; names of published segmentors are translated.
        source: What an error calls the checkpoint.
        reset_heads: Heads whose classifier starts afresh, whatever the checkpoint has there.

    Raises:
        UserError: Missing or unexpected keys, or other shapes; all are listed at once. Or no such head.
    """
    model = unwrap(model)
    own = model.state_dict()
    state = {rename_legacy(key, own): value for key, value in state_dict.items()}
    fresh = _reset(model, reset_heads)
    state = {key: value for key, value in state.items() if not key.startswith(fresh)} if fresh else state
    taken = Counter(key.partition('.')[0] for key in state)
    state.update({key: value for key, value in own.items() if fresh and key.startswith(fresh)})
    other = [key for key in own.keys() & state.keys() if _shape(state[key]) != _shape(own[key])]
    faults = [
        *_keys('missing in the checkpoint', own.keys() - state.keys()),
        *_keys('unknown to the model', state.keys() - own.keys()),
        *_keys('of other shapes', (_shapes(key, state[key], own[key]) for key in other)),
    ]
    if faults:
        message = problems(f'{source} does not fit the model of this config', faults)
        raise UserError('\n'.join([message, *_head_advice(other)]))
    model.load_state_dict(state)
    renamed = sum(rename_legacy(key, own) != key.removeprefix('module.') for key in state_dict)
    return StateReport(source, dict(taken), renamed, fresh)


def _reset(model: nn.Module, heads: Sequence[str]) -> tuple[str, ...]:
    """Draws the classifiers of heads anew; returns the prefixes of their keys."""
    known = [part for part, _ in model.named_children() if part.endswith('head')]
    prefixes: list[str] = []
    for name in heads:
        if name not in known:
            raise UserError(f'--reset-head: {unknown("head", name, known)}')
        head = model.get_submodule(name)
        inner = [path for path, module in head.named_modules() if hasattr(module, CLASSIFIER)]
        prefixes += ['.'.join(filter(None, (name, path, CLASSIFIER))) + '.' for path in inner] or [f'{name}.']
        several: list[Any] = list(head) if isinstance(head, nn.ModuleList) else [head]
        for module in several:
            module.init_weights()
    return tuple(prefixes)


def _head_advice(other: Sequence[str]) -> list[str]:
    """The way out where nothing but classifiers differ."""
    heads = [key.partition('.')[0] for key in other if f'.{CLASSIFIER}.' in key]
    if not heads or len(heads) < len(other):
        return []
    return [RESET.format(heads=' '.join(sorted(set(heads), reverse=True)))]


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
