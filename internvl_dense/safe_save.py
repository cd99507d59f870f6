"""Plain data only: turns a checkpoint into tensors, numbers, strings, lists and dicts, and writes it in one piece."""

from __future__ import annotations

import datetime
import os
import pathlib
import uuid
from typing import Any

import numpy as np
import torch

from internvl_dense.errors import UserError, problems
from internvl_dense.safe_types import CONFIGS, STATES, HistoryBufferPlaceholder, InertPlaceholder

_NUMBERS = (bool, int, float, complex)
_NO_ANSWER = object()
_LEFT_OUT = object()


def to_plain(obj: Any) -> Any:
    """Copies a nested structure into tensors, numbers, strings, None, lists and dicts.

    numpy numbers become Python numbers, numpy arrays tensors (arrays of text: lists), tuples lists, mappings dicts,
    parameters detached tensors that share their memory. Attributes of an `OrderedDict`, such as the versions torch
    hangs on a state dict, are dropped.

    Raises:
        UserError: Objects of other types; all are listed with the keys that lead to them.
    """
    converter = _Converter()
    plain = converter.convert(obj, '', frozenset())
    if converter.faults:
        rule = 'A checkpoint holds tensors, numbers, strings, lists and dicts; convert or leave out'
        raise UserError(problems(rule, converter.faults))
    return plain


def keep_plain(obj: Any) -> tuple[Any, list[str]]:
    """Like `to_plain`, but leaves out what is not plain instead of refusing the whole.

    An entry of a dict goes with its key; in a list None takes its place. Beyond `to_plain`, sets become lists (sorted
    if they hold text), torch dtypes and devices text, and modules their state dict.

    Returns:
        The plain copy, and one sentence for each thing that was left out, with the keys that led to it.

    Raises:
        UserError: The object itself is not plain, so nothing would be left.
    """
    converter = _Lenient()
    plain = converter.convert(obj, '', frozenset())
    if plain is _LEFT_OUT:
        raise UserError(f'there is no plain data in it: {converter.faults[0]}')
    return plain, converter.faults


def save_file(obj: Any, path: str | os.PathLike[str]) -> None:
    """Writes `to_plain(obj)` as a torch file that `torch.load(path, weights_only=True)` reads.

    The file appears under its name only when it is complete and on disk: an interrupted save leaves what was there.

    Raises:
        UserError: `obj` holds more than plain data, the folder does not exist, or the name says safetensors.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix == '.safetensors':
        raise UserError(f'{path}: save_file writes torch files; name it .pth')
    if not path.parent.is_dir():
        raise UserError(f'{path} cannot be written: there is no folder {path.parent.resolve()}')
    plain = to_plain(obj)
    draft = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.tmp')
    try:
        with draft.open('xb') as file:
            torch.save(plain, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: pathlib.Path) -> None:
    """The new name is on disk only when the folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Converter:
    """One pass of `to_plain`; collects what does not fit."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        # id -> (object, its plain form): what was shared stays shared. The object is kept so that its id stays taken.
        self.done: dict[int, tuple[Any, Any]] = {}

    def convert(self, obj: Any, where: str, parents: frozenset[int]) -> Any:
        simple = _simple(obj)
        if simple is not _NO_ANSWER:
            return simple
        if id(obj) in parents:
            return self._fault(where, 'contains itself')
        if self.done.get(id(obj), (obj, _LEFT_OUT))[1] is _LEFT_OUT:  # new, or a fault here as well
            self.done[id(obj)] = (obj, self._composite(obj, where, parents | {id(obj)}))
        return self.done[id(obj)][1]

    def _composite(self, obj: Any, where: str, parents: frozenset[int]) -> Any:
        if isinstance(obj, torch.Tensor):
            return self._tensor(obj, where)
        if isinstance(obj, np.ndarray):
            return self._array(obj, where, parents)
        if isinstance(obj, InertPlaceholder):
            content = _content(obj)
            return self._fault(where, repr(obj)) if content is None else self.convert(content, where, parents)
        if isinstance(obj, dict):
            pairs = [(self._key(key, where), self.convert(value, f'{where}[{key!r}]', parents))
                     for key, value in obj.items()]
            return {key: value for key, value in pairs if key is not _LEFT_OUT and value is not _LEFT_OUT}
        if isinstance(obj, (list, tuple)):
            items = [self.convert(item, f'{where}[{i}]', parents) for i, item in enumerate(obj)]
            return [None if item is _LEFT_OUT else item for item in items]
        return self._other(obj, where, parents)

    def _other(self, obj: Any, where: str, parents: frozenset[int]) -> Any:
        return self._fault(where, f'is {_type_name(obj)}')

    def _tensor(self, tensor: torch.Tensor, where: str) -> Any:
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            return self._fault(where, f'is {_type_name(tensor)}')
        if tensor.is_meta:
            return self._fault(where, 'is a tensor on the meta device, which has no values')
        return tensor.detach()

    def _array(self, array: np.ndarray[Any, Any], where: str, parents: frozenset[int]) -> Any:
        if array.dtype.kind in 'USO':
            return self.convert(array.tolist(), where, parents)
        if array.dtype.kind not in 'biufc' or array.dtype.itemsize > 16 or array.dtype.char in 'gG':
            return self._fault(where, f'is a numpy array of {array.dtype}')
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder('='), order='C'))

    def _key(self, key: Any, where: str) -> Any:
        plain = _simple(key)
        return self._fault(where, f'has a key of {_type_name(key)}: {key!r}') if plain is _NO_ANSWER else plain

    def _fault(self, where: str, what: str) -> Any:
        self.faults.append(f'{where or "the object itself"} {what}')
        return _LEFT_OUT


class _Lenient(_Converter):
    """One pass of `keep_plain`."""

    def _other(self, obj: Any, where: str, parents: frozenset[int]) -> Any:
        if isinstance(obj, (set, frozenset)):
            text = all(isinstance(item, str) for item in obj)
            return self.convert(sorted(obj) if text else list(obj), where, parents)
        if isinstance(obj, (torch.dtype, torch.device)):
            return str(obj)
        if isinstance(obj, torch.nn.Module):
            return self.convert(obj.state_dict(), where, parents)
        return super()._other(obj, where, parents)


def _simple(obj: Any) -> Any:
    """Plain form of None, a number or a string, whatever their exact class; `_NO_ANSWER` for anything else."""
    if obj is None or type(obj) in (*_NUMBERS, str):
        return obj
    if isinstance(obj, np.generic):
        value = obj.item()
        return value if type(value) in (*_NUMBERS, str) else _NO_ANSWER
    # Enumerations and other subclasses.
    if isinstance(obj, int):
        return int(obj)
    if isinstance(obj, float):
        return float(obj)
    return str.__str__(obj) if isinstance(obj, str) else _NO_ANSWER


def _content(placeholder: InertPlaceholder) -> Any:
    """What a placeholder holds, for the classes whose content is plain; None for the others."""
    name = placeholder.qualified_name
    if isinstance(placeholder, HistoryBufferPlaceholder):
        values, counts, max_length = placeholder.history
        return {'values': values.tolist(), 'counts': counts.tolist(), 'max_length': max_length}
    if name in STATES and isinstance(placeholder.state, dict):
        return placeholder.state
    if name in CONFIGS and isinstance(placeholder.state, tuple) and placeholder.state:
        return placeholder.state[0]
    if name.startswith('pathlib.') and all(isinstance(part, str) for part in placeholder.args):
        flavour = pathlib.PureWindowsPath if 'Windows' in name else pathlib.PurePosixPath
        return str(flavour(*placeholder.args))
    if name.startswith('datetime.') and len(placeholder.args) == 1 and isinstance(placeholder.args[0], bytes):
        kind = datetime.datetime if name.endswith('.datetime') else datetime.date
        return kind(placeholder.args[0]).isoformat()  # type: ignore[call-arg, arg-type]
    return None


def _type_name(obj: object) -> str:
    return f'{type(obj).__module__}.{type(obj).__qualname__}'
