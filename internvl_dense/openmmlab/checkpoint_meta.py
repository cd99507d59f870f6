"""What a checkpoint says about itself: variant, classes, label policy, weights it started from, config."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torch import nn

from internvl_dense.backbones.fingerprint import file_sha256
from internvl_dense.backbones.internvit import InternViT
from internvl_dense.errors import UserError

FORMAT = 1
KEY = 'internvl_dense'
RUN_STATE = ('optimizer', 'meta', 'message_hub')  # what resuming needs beside the weights
Origin = dict[str, str] | None  # path and SHA-256 of the weights that a run started from


def describe(model: nn.Module, dataset: Any, config: str, origin: Origin) -> dict[str, Any]:
    """The meta entry of a checkpoint, as plain data.

    Args:
        model: The whole model; its first InternViT names the variant.
        dataset: The training data set, which knows classes and label policy.
        config: Text of the resolved config of the run.
        origin: See `origin`.
    """
    trunk = _trunk(model)
    meta = getattr(dataset, 'metainfo', {}) or {}
    policy = {'ignore_index': getattr(dataset, 'ignore_index', 255),
              'reduce_zero_label': bool(getattr(dataset, 'reduce_zero_label', False))}
    return {
        'format': FORMAT,
        'variant': trunk.spec.name if trunk else None,
        'classes': list(meta.get('classes') or ()),
        'palette': [list(colour) for colour in meta.get('palette') or ()],
        'label_policy': policy,
        'weights': origin,
        'config': config,
    }


def origin(model: nn.Module, load_from: str | None) -> Origin:
    """What a new run starts from: a whole checkpoint, else the weights of the trunk, else None for random values.

    Read at the start of the run, because the file may be gone when the first checkpoint is written.
    """
    path = load_from or getattr(_trunk(model), 'weights', None)
    return None if path is None else {'path': os.fspath(path), 'sha256': file_sha256(path)}


def _trunk(model: nn.Module) -> InternViT | None:
    return next((module for module in model.modules() if isinstance(module, InternViT)), None)


def require_run_state(checkpoint: dict[str, Any], path: str) -> None:
    """Refuses to resume from a file that holds weights alone.

    Raises:
        UserError: It lacks the optimizer or the counters.
    """
    missing = [key for key in RUN_STATE if key not in checkpoint]
    if missing:
        raise UserError(f'{path} cannot be resumed, it has no {", ".join(missing)}: only iter_N.pth files hold a whole '
                        'run. To start a new run from its weights use --load-from.')


def find(checkpoint: Any, path: str) -> dict[str, Any] | None:
    """The meta entry of a loaded checkpoint, or None where other software wrote it.

    Raises:
        UserError: The entry is of a later format.
    """
    header = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    meta: dict[str, Any] | None = header.get(KEY) if isinstance(header, dict) else None
    if meta is not None and meta['format'] > FORMAT:
        raise UserError(f'{path} has format {meta["format"]}, this version reads {FORMAT}: upgrade internvl-dense')
    return meta


def read(checkpoint: dict[str, Any], path: str) -> dict[str, Any]:
    """The meta entry of a loaded checkpoint.

    Raises:
        UserError: The checkpoint has none, or one of a later format.
    """
    meta = find(checkpoint, path)
    if meta is None:
        raise UserError(f'{path} has no entry meta.{KEY}: it was not written by this project, so its classes are '
                        'unknown. Convert it first, or test it with a config that names its classes.')
    return meta


def check_classes(saved: Sequence[str], configured: Sequence[str], path: str) -> None:
    """Compares the classes of a checkpoint with those of a data set.

    Raises:
        UserError: They differ, with the first differences.
    """
    if list(saved) == list(configured):
        return
    pairs = [f'{i}: checkpoint {a!r}, data {b!r}'
             for i, (a, b) in enumerate(zip(saved, configured, strict=False)) if a != b][:3]
    raise UserError(f'{path} was trained on {len(saved)} classes, the data set has {len(configured)} and they differ '
                    f'({"; ".join(pairs) or "one list is longer"}). Use the config it was trained with.')
