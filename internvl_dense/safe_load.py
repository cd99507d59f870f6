"""Loads checkpoints without executing anything they contain.

Every file is read as safetensors or with torch's restricted reader (`weights_only=True`); there is no second,
unrestricted attempt. What a file may name beyond tensors is listed in `safe_types`.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pickle
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file as load_safetensors

from internvl_dense.errors import UserError, problems
from internvl_dense.registry import closest
from internvl_dense.safe_format import FileKind, named_globals, sniff, zip_members
from internvl_dense.safe_save import keep_plain, save_file, to_plain
from internvl_dense.safe_types import ALLOWED_GLOBALS, ANSWERS, InertPlaceholder, Refused, replace_placeholders

__all__ = [
    'CheckpointNotFoundError', 'CorruptCheckpointError', 'InertPlaceholder', 'MapLocation', 'UnsafeCheckpointError',
    'keep_plain', 'load_file', 'printable', 'refused_names', 'save_file', 'to_plain',
]

MapLocation = str | torch.device | dict[str, str] | Callable[..., Any] | None

_RULE = ('A checkpoint may hold tensors, numbers, strings, lists and dicts; anything else can run code while it is '
         'loaded, so it is not read.')
_WAY_OUT = ('If you trust whoever wrote it, convert it once: python tools/convert_checkpoint.py {path} DST.pth --to '
            'plain --trust-pickle. That lists what would run, asks, and opens it in a process of its own.')
_ADVICE = {
    FileKind.HTML: 'The download probably needs a login or a direct link: download it again and look at its size.',
    FileKind.LFS: 'It only names the real file: run `git lfs pull` in its folder.',
    FileKind.EMPTY: 'Its download or copy failed: fetch it again.',
    FileKind.BROKEN_ZIP: 'Its download or copy was cut off, or the disk was full: fetch it again.',
    FileKind.JSON: 'It may be the index of a checkpoint in several files: name the folder, or the weight files.',
    FileKind.TORCHSCRIPT: 'Such an archive holds program code. Save the state_dict of the model instead.',
    FileKind.TAR: 'Unpack it, or save it again with torch.save in a recent torch.',
    FileKind.ZIP: 'Unpack it and name the weight file in it.',
    FileKind.GZIP: 'Unpack it first.',
    FileKind.PICKLE: 'Save its tensors with torch.save or as safetensors.',
}
# How the lines begin that torch puts around its reason (torch.serialization.load).
_TORCH_ADVICE = ('Weights only load failed', 'Please file an issue', 'Check the documentation', '(1)', '(2)')
_WEIGHT_SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin', '.ckpt')
_MAX_NAMES, _MAX_CHARACTERS = 20, 200
# torch keeps the names it accepts in one place for the whole process.
_lock = threading.RLock()


class UnsafeCheckpointError(UserError):
    """The file asks for classes or functions that are not plain data. None of them was called.

    Attributes:
        names: What it asks for, printable.
    """

    def __init__(self, message: str, names: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)


class CorruptCheckpointError(UserError):
    """The file is damaged, or it is no checkpoint."""


class CheckpointNotFoundError(UserError, FileNotFoundError):
    """There is no such file; the message says where it was looked for."""


def load_file(path: str | os.PathLike[str], map_location: MapLocation = 'cpu', mmap: bool = True) -> Any:
    """Reads one checkpoint file; the format is told by the content.

    Args:
        path: A safetensors file, or a file written by `torch.save`.
        map_location: Device for the tensors, as for `torch.load`; None means 'cpu'. For safetensors a device only.
        mmap: Map the file instead of copying it, where the format allows. Pages are read when they are used, and
            the tensors stay tied to the file on the CPU: do not overwrite it in place while they live.

    Returns:
        What the file holds: for safetensors a dict from names to tensors. numpy numbers and arrays are real ones;
        objects of other accepted classes are `InertPlaceholder`s, which `to_plain` can turn into plain data.

    Raises:
        CheckpointNotFoundError: No such file.
        UnsafeCheckpointError: The file names something that is not plain data.
        CorruptCheckpointError: The file is truncated, or no checkpoint.
        UserError: The device does not exist here.
    """
    file = _existing(pathlib.Path(path).expanduser())
    map_location = 'cpu' if map_location is None else map_location
    _check_device(map_location)
    kind = sniff(file)
    if kind is FileKind.SAFETENSORS:
        return _load_safetensors(file, map_location)
    if kind not in (FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY) or file.suffix == '.safetensors':
        raise _wrong_kind(file, kind)
    return _load_torch(file, kind, map_location, mmap and kind is FileKind.TORCH_ZIP)


def _existing(path: pathlib.Path) -> pathlib.Path:
    """The path, if it is a file.

    Raises:
        CheckpointNotFoundError: It is not.
        CorruptCheckpointError: It is a folder or a device.
    """
    if path.is_file():
        return path
    if path.is_dir():
        files = sorted(child.name for child in path.iterdir() if child.suffix in _WEIGHT_SUFFIXES)
        hint = f'Name a file in it: {", ".join(files[:8])}.' if files else 'There is no weight file in it.'
        raise CorruptCheckpointError(f'{path} is a folder, not a checkpoint file. {hint}')
    if path.exists():
        raise CorruptCheckpointError(f'{path} is not a regular file.')
    message = f'{path} does not exist.'
    if not path.is_absolute():
        message += f' Looked in {pathlib.Path.cwd()}.'
    if path.parent.is_dir():
        near = closest(path.name, [child.name for child in path.parent.iterdir()])
        message += f' Similar names there: {", ".join(near)}.' if near else ''
    else:
        message += f' Its folder {path.parent} does not exist either.'
    raise CheckpointNotFoundError(message)


def _check_device(map_location: MapLocation) -> None:
    if not isinstance(map_location, (str, torch.device)):
        return
    try:
        device = torch.device(map_location)
    except RuntimeError as error:
        raise UserError(f"map_location={map_location!r} is no device; examples: 'cpu', 'cuda:0'") from error
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise UserError(f"map_location={str(map_location)!r}: no CUDA device is usable here. Use map_location='cpu'.")


def _load_safetensors(path: pathlib.Path, map_location: MapLocation) -> dict[str, torch.Tensor]:
    if not isinstance(map_location, (str, torch.device)):
        raise UserError(f'{path} is a safetensors file: its map_location is a device, not {map_location!r}')
    try:
        return load_safetensors(path, device=str(map_location))
    except SafetensorError as error:
        raise CorruptCheckpointError(f'{path} is a damaged or incomplete safetensors file ({error}). '
                                     'Fetch it again.') from error


def _wrong_kind(path: pathlib.Path, kind: FileKind) -> UserError:
    """The error for a file that cannot be a checkpoint."""
    suffix = ' although it is named .safetensors' if path.suffix == '.safetensors' else ''
    refused = refused_names(path)
    if refused:
        return _refusal(path, refused, f'it is {kind.value}{suffix}, and ')
    advice = _ADVICE.get(kind, 'Expected a safetensors file or a file written by torch.save.')
    if kind in (FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY):
        advice = 'Rename it to .pth.'
    if kind is FileKind.ZIP:
        advice += f' It holds: {", ".join(zip_members(path)[:5])}.'
    return CorruptCheckpointError(f'{path} is {kind.value}{suffix}. {advice}')


def _load_torch(path: pathlib.Path, kind: FileKind, map_location: MapLocation, mmap: bool) -> Any:
    try:
        with _only_our_globals():
            content = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
        return replace_placeholders(content, lambda placeholder: placeholder.finish())
    except Refused as refusal:
        raise _refusal(path, [str(refusal)]) from None
    except (MemoryError, OSError, torch.OutOfMemoryError):
        raise  # about this machine, not about the file
    except Exception as error:  # noqa: BLE001 - a damaged or hostile file can make the reader raise anything
        # Not chained: torch's text recommends the unrestricted reader.
        raise _explain(path, kind, error) from None


@contextlib.contextmanager
def _only_our_globals() -> Iterator[None]:
    """Accepts the names of `safe_types` for the time of one load, and no others.

    Names that other libraries registered are set aside meanwhile: mmengine, for one, accepts the real `getattr`.
    Loads of this module take turns; a torch.load in another thread would see our list for that time.
    """
    with _lock:
        others = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            with torch.serialization.safe_globals(ALLOWED_GLOBALS):
                yield
        finally:
            torch.serialization.add_safe_globals(others)


def _explain(path: pathlib.Path, kind: FileKind, error: Exception) -> UserError:
    """The error to show for what torch raised."""
    reason = _torch_reason(str(error))
    refused = refused_names(path)
    other_protocol = reason.startswith('Unsupported operand')
    if not refused and isinstance(error, pickle.UnpicklingError) and not other_protocol:
        # All names are accepted ones, but they are used to alter something else than the contents of a list or dict.
        refused = [f'{name}, used otherwise than to hold data'
                   for name in named_globals(path, kind) if name in ANSWERS] or [reason]
    if refused:
        return _refusal(path, refused)
    return CorruptCheckpointError(
        f'{path} is {kind.value}, but it cannot be read: {type(error).__name__}: {reason}. It is damaged, incomplete '
        'or written with other pickle settings than those of torch.save: fetch it again, or save it again.'
        + (f' {_way_out(path)}' if other_protocol else ''))


def _torch_reason(text: str) -> str:
    """What torch found wrong, without its advice to read the file unrestrictedly."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(_TORCH_ADVICE)]
    return reasons[0].rstrip('.') if reasons else 'no details'


def refused_names(path: pathlib.Path) -> list[str]:
    """Names in a file that are no plain data, all at once and as written there; torch stops at the first.

    A file made for it can hide names: the list words messages and guards nothing.
    """
    own: dict[str, Any] = getattr(torch._weights_only_unpickler, '_get_allowed_globals', dict)()
    return [name for name in named_globals(path, sniff(path)) if name not in ANSWERS and name not in own]


def printable(texts: Iterable[str]) -> list[str]:
    """Texts from a file that may be hostile, fit for a terminal: no control characters, 200 characters each."""
    return [''.join(char if char.isprintable() else '?' for char in text[:_MAX_CHARACTERS]) for text in texts]


def _refusal(path: pathlib.Path, names: list[str], kind: str = '') -> UnsafeCheckpointError:
    names = printable(names)
    more = [f'{len(names) - _MAX_NAMES} more names'] if len(names) > _MAX_NAMES else []
    title = problems(f'{path} is refused, {kind}it asks for more than plain data', [*names[:_MAX_NAMES], *more])
    return UnsafeCheckpointError('\n'.join([title, _RULE, _way_out(path)]), names)


def _way_out(path: pathlib.Path) -> str:
    return _WAY_OUT.format(path=shlex.quote(str(path)))
