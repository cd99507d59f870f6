"""Routes every checkpoint that OpenMMLab code loads through `internvl_dense.safe_load`.

mmengine picks a loader by the beginning of the path. All of its loaders are replaced: files are read safely, and an
address (http, s3, open-mmlab, ...) is refused, so that loading weights never opens a connection. Runners, `init_model`,
inferencers and `init_cfg=dict(type='Pretrained')` all ask the same table.

A scheme that a plug-in registers later is used for addresses of that scheme only; local paths stay with this loader
unless the plug-in replaces the loader of local paths on purpose. Calling `register_safe_loader` again restores all.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from internvl_dense.errors import UserError
from internvl_dense.openmmlab import frozen_trunk
from internvl_dense.safe_load import MapLocation, load_file
from internvl_dense.safe_types import HistoryBufferPlaceholder, InertPlaceholder, replace_placeholders

LOCAL = ''  # the scheme of a plain path
# Where checkpoints keep the text of a config, which is a program: mmengine would run it to resume, or to build an
# inferencer that was given no config. Under another name it stays readable and is never run.
CONFIG_TEXTS = (('meta', 'cfg'), ('meta', 'config'), ('message_hub', 'runtime_info', 'cfg'))


def register_safe_loader() -> None:
    """Replaces mmengine's loaders of all schemes; calling it again does no harm."""
    for scheme in list(CheckpointLoader._schemes):
        if scheme != LOCAL:
            CheckpointLoader.register_scheme(scheme, load_from_remote_refused, force=True)
    CheckpointLoader.register_scheme(LOCAL, load_from_local_safely, force=True)


def load_from_local_safely(filename: str, map_location: MapLocation = None) -> Any:
    """Reads a checkpoint file for mmengine, which announces it as the backend 'local_safely'.

    Args:
        filename: Path of a safetensors or torch file.
        map_location: Device; None means 'cpu'.

    Returns:
        As `load_file`, with mmengine's logged curves as `HistoryBuffer` objects. Weights are mapped from the file;
        everything beside `state_dict` (optimizer, ...) has its own memory, because it stays in use after loading.
        Config texts are renamed to `<name>_text`, see `CONFIG_TEXTS`.

    Raises:
        UserError: See `load_file`.
    """
    checkpoint = replace_placeholders(load_file(filename, map_location), _restore)
    if isinstance(checkpoint, dict) and 'state_dict' in checkpoint:
        seen: set[int] = set()
        for key in checkpoint.keys() - {'state_dict'}:
            checkpoint[key] = _own_memory(checkpoint[key], seen)
    for path in CONFIG_TEXTS:
        _disarm(checkpoint, path)
    frozen_trunk.announce(checkpoint, filename)
    return checkpoint


def load_from_remote_refused(filename: str, map_location: MapLocation = None, **options: Any) -> Any:
    """Refuses an address.

    Raises:
        UserError: Always.
    """
    raise UserError(f'{filename!r} is an address, and weights are only loaded from local files. Download the file '
                    'first, check where it comes from, and give its path.')


def _disarm(checkpoint: Any, path: tuple[str, ...]) -> None:
    """Renames the entry at `path`, where there is one."""
    holder = checkpoint
    for key in path[:-1]:
        holder = holder.get(key) if isinstance(holder, dict) else None
    if isinstance(holder, dict) and path[-1] in holder:
        holder[f'{path[-1]}_text'] = holder.pop(path[-1])


def _restore(placeholder: InertPlaceholder) -> Any:
    if not isinstance(placeholder, HistoryBufferPlaceholder):
        return placeholder
    # Through the constructor: HistoryBuffer.__setstate__ would write the methods of the file into the class.
    values, counts, max_length = placeholder.history
    return HistoryBuffer(values, counts, max_length)


def _own_memory(obj: Any, seen: set[int]) -> Any:
    """Copies CPU tensors in nested containers away from the mapped file, which the run may overwrite later."""
    if isinstance(obj, torch.Tensor):
        return obj.clone() if obj.device.type == 'cpu' else obj
    if type(obj) is tuple:
        return tuple(_own_memory(item, seen) for item in obj)
    if isinstance(obj, (dict, list)) and id(obj) not in seen:
        seen.add(id(obj))  # a file may hold a container that contains itself
        for key in obj if isinstance(obj, dict) else range(len(obj)):
            obj[key] = _own_memory(obj[key], seen)
    return obj
