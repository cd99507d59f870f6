"""Checkpoints of runs with a frozen trunk hold what was trained; the trunk comes from its weights again.

A frozen InternViT-6B is 12 GB that never change, beside a linear head of 2 MB. Such a checkpoint says instead which
weights the trunk had (path and SHA-256), and loading it reads them again and refuses others. What a backbone carries
beside its trunk, such as an adapter, was trained and stays in the checkpoint.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mmengine.dist import is_main_process
from torch import nn

from internvl_dense.backbones.fingerprint import Origin
from internvl_dense.backbones.locate import find_weights
from internvl_dense.backbones.trunk_keys import is_trunk_key, trunk_parameters
from internvl_dense.errors import UserError
from internvl_dense.openmmlab import checkpoint_meta
from internvl_dense.openmmlab.strict_load import unwrap
from internvl_dense.openmmlab.trunks import find_trunk

RECORD = 'trunk'  # in this project's meta entry: prefix, path and sha256 of a trunk that the checkpoint leaves out
STATES = (('state_dict', ''), ('ema_state_dict', 'module.'))  # the second one in runs with a moving average


def record_of(checkpoint: Any, source: str) -> dict[str, str] | None:
    """What a checkpoint says of a trunk that it leaves out, or None if it is whole."""
    entry = checkpoint_meta.find(checkpoint, source)
    return entry.get(RECORD) if entry else None


def omitted(model: nn.Module) -> tuple[str, Origin] | None:
    """Prefix and weights of a frozen trunk that checkpoints of this model leave out, or None."""
    found = find_trunk(unwrap(model))
    if found is None:
        return None
    prefix, trunk = found
    origin: Origin | None = getattr(trunk, 'origin', None)
    if not trunk.frozen or origin is None or getattr(trunk, 'save_frozen', True):
        return None
    return prefix, origin


def is_omitted(key: str, prefix: str) -> bool:
    """Whether a key of a model belongs to its trunk.

    Args:
        key: As in 'backbone.blocks.0.ls1.gamma'.
        prefix: Of the backbone, as in 'backbone.'.
    """
    return key.startswith(prefix) and is_trunk_key(key.removeprefix(prefix))


def trim(checkpoint: dict[str, Any], model: nn.Module) -> None:
    """Leaves a frozen trunk out of a checkpoint that is about to be written, if its weights are those of a file."""
    left_out = omitted(model)
    entry = checkpoint.get('meta', {}).get(checkpoint_meta.KEY)
    if left_out is None or entry is None:
        return
    prefix, origin = left_out
    entry[RECORD] = {'prefix': prefix, **origin.as_dict()}
    for name, wrapper in STATES:
        if name in checkpoint:
            state = checkpoint[name].items()
            checkpoint[name] = {key: value for key, value in state if not is_omitted(key, wrapper + prefix)}


def complete(checkpoint: dict[str, Any], model: nn.Module, source: str) -> None:
    """Puts the trunk back into a checkpoint that was read; without effect for whole ones.

    Args:
        checkpoint: With its meta entry; its states are completed in place, by reference to the model's own parameters.
        model: Its trunk is filled from the weights that its config names.
        source: What an error calls the checkpoint.

    Raises:
        UserError: The weights are not there, or not those that the checkpoint was trained on.
    """
    record = record_of(checkpoint, source)
    if record is None:
        return
    found = find_trunk(unwrap(model))
    if found is None:
        raise UserError(f'{source} was trained on a frozen InternViT, and the model of this config has none')
    prefix, trunk = found
    fill(trunk, record, source)
    own = {name: parameter.detach() for name, parameter in trunk_parameters(trunk).items()}
    for name, wrapper in STATES:
        if name in checkpoint:
            checkpoint[name] = {**checkpoint[name], **{wrapper + prefix + key: own[key] for key in own}}


def fill(trunk: Any, record: Mapping[str, str], source: str) -> None:
    """Fills a trunk from the weights that its config names, if they are those of the record.

    Raises:
        UserError: They are not there, or are others.
    """
    path = find_weights(trunk.spec, trunk.weights)
    if path is None or not path.exists():
        where = f'there is no {path}' if path else f'weights={trunk.weights!r} names no file'
        raise UserError(f'{source} holds what was trained; its frozen trunk was {record["path"]}, and {where}. Give '
                        'that file with --weights PATH.')
    origin = Origin(path)
    if is_main_process() and origin.sha256 != record['sha256']:
        raise UserError(f'{path} is not the trunk that {source} was trained on: that was {record["path"]} with sha256 '
                        f'{record["sha256"]}. Give that file with --weights PATH.')
    if trunk.origin is None or trunk.origin.path != path:
        trunk.init_weights()
    trunk.origin = origin  # which knows its checksum: 12 GB are read for it once


def announce(checkpoint: Any, source: str) -> None:
    """Tells loaders of other software, which hand on nothing but the state, that the trunk is to be filled."""
    record = record_of(checkpoint, source)
    if record is None:
        return
    state = OrderedDict(checkpoint['state_dict'])
    metadata = OrderedDict(getattr(checkpoint['state_dict'], '_metadata', {}))
    module = record['prefix'].removesuffix('.')
    metadata[module] = {**metadata.get(module, {}), RECORD: record}
    state._metadata = metadata  # type: ignore[attr-defined]
    checkpoint['state_dict'] = state
