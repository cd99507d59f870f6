"""What a checkpoint says about itself: variant, classes, label policy, weights it started from, numerics, config."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from torch import nn

from internvl_dense.backbones.fingerprint import file_sha256
from internvl_dense.backbones.locate import RANDOM
from internvl_dense.errors import UserError
from internvl_dense.openmmlab.trunks import find_trunk
from internvl_dense.training.numerics import Numerics

FORMAT = 2  # 2: frozen trunks are left out; numerics and random weights are named
KEY = 'internvl_dense'
RUN_STATE = ('optimizer', 'meta', 'message_hub')  # what resuming needs beside the weights
Origin = dict[str, str | None] | None  # path and SHA-256 of the weights that a run started from


def describe(model: nn.Module, dataset: Any, config: str, origin: Origin) -> dict[str, Any]:
    """The meta entry of a checkpoint, as plain data.

    Args:
        model: The whole model; its first InternViT names the variant.
        dataset: The training data set, which knows classes and label policy.
        config: Text of the resolved config of the run.
        origin: See `origin`.
    """
    found = find_trunk(model)
    meta = getattr(dataset, 'metainfo', {}) or {}
    policy = {'ignore_index': getattr(dataset, 'ignore_index', 255),
              'reduce_zero_label': bool(getattr(dataset, 'reduce_zero_label', False))}
    return {
        'format': FORMAT,
        'variant': found[1].spec.name if found else None,
        'classes': list(meta.get('classes') or ()),
        'palette': [list(colour) for colour in meta.get('palette') or ()],
        'label_policy': policy,
        'weights': origin,
        'numerics': numerics_of(model),
        'config': config,
    }


def origin(model: nn.Module, load_from: str | None) -> Origin:
    """What a new run starts from: a whole checkpoint, else the weights of the trunk, which may be random values.

    Read at the start of the run, because the file may be gone when the first checkpoint is written.
    """
    if load_from is not None:
        return {'path': os.fspath(load_from), 'sha256': file_sha256(load_from)}
    found = find_trunk(model)
    if found is None:
        return None
    source = getattr(found[1], 'origin', None)
    return {'path': RANDOM, 'sha256': None} if source is None else source.as_dict()


def numerics_of(model: nn.Module) -> str | None:
    """Name of the numerics of a model, which may be inside a wrapper; None for models that know none."""
    rows = (getattr(module, 'numerics', None) for module in model.modules())
    return next((row.name for row in rows if isinstance(row, Numerics)), None)


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


def classes_of(checkpoint: Any, path: str) -> list[str]:
    """Names of the classes that a checkpoint was trained on; empty where it does not say.

    Beside our own entry, `meta.CLASSES` (mmcv 1.x) and `meta.dataset_meta.classes` (mmengine) are understood.
    """
    own = find(checkpoint, path)
    if own is not None:
        return list(own['classes'])
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    dataset = meta.get('dataset_meta')
    names = meta.get('CLASSES') or (dataset.get('classes') if isinstance(dataset, dict) else None)
    return [str(name).strip() for name in names] if isinstance(names, (list, tuple)) else []


def check_classes(saved: Sequence[str], configured: Sequence[str], path: str, heads: Sequence[str] = ()) -> None:
    """Compares the classes of a checkpoint with those of a data set; blanks around names do not count.

    Args:
        saved: Of the checkpoint.
        configured: Of the data set.
        path: The checkpoint.
        heads: Heads that may start afresh, where a run trains from the checkpoint.

    Raises:
        UserError: They differ, with the first differences and the way out.
    """
    saved, configured = [name.strip() for name in saved], [name.strip() for name in configured]
    if saved == configured:
        return
    pairs = [f'{i}: checkpoint {a!r}, data {b!r}'
             for i, (a, b) in enumerate(zip(saved, configured, strict=False)) if a != b][:3]
    fix = f' To train from it on these classes: --reset-head {" ".join(heads)}' if heads else ''
    raise UserError(f'{path} was trained on {len(saved)} classes, the data set has {len(configured)} and they differ '
                    f'({"; ".join(pairs) or "one list is longer"}). Use the config it was trained with.{fix}')
