"""The process that opens a trusted checkpoint file without restrictions and writes down what is plain in it.

Started by `_trust` and by nothing else: what the file asks for is executed here.
"""

from __future__ import annotations

import functools
import json
import pathlib
import pickle
import types
from typing import IO, Any

PLAIN, LEFT_OUT = 'plain.pth', 'left_out.json'  # what it leaves in its folder
# numpy's names and Python's own stay real: theirs can be used in more ways than a stand-in answers.
_REAL = ('numpy.', 'builtins.')


class Unpickler(pickle.Unpickler):
    """Executes what a file asks for, with two exceptions.

    Names that the safe reader accepts are answered with its inert stand-ins, and classes that cannot be imported here
    with empty ones, so that a file opens without the program that wrote it.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Looks up one name of the file."""
        from internvl_dense.safe_format import modern_name
        from internvl_dense.safe_types import ANSWERS

        full_name = modern_name(module, name)
        if full_name == 'builtins.getattr':
            return _getattr
        if full_name in ANSWERS and not full_name.startswith(_REAL):
            return ANSWERS[full_name]
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return _absent(full_name)


class _Absent:
    """An object of a class that is not installed here; it forgets what it is given."""

    def __new__(cls, *args: object, **options: object) -> _Absent:
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """For subclasses of list."""

    def extend(self, items: object) -> None:
        """For subclasses of list."""


@functools.cache
def _absent(full_name: str) -> type[_Absent]:
    module, _, name = full_name.rpartition('.')
    return type(name, (_Absent,), {'__module__': module, '__qualname__': name})


def _getattr(*args: Any) -> Any:
    """The real one, except on classes that are not real: it is how nested classes and methods are written."""
    from internvl_dense.safe_types import HistoryBufferPlaceholder, HistoryMethod

    owner = args[0] if args else None
    if owner is HistoryBufferPlaceholder:
        return HistoryMethod(*args)
    if isinstance(owner, type) and issubclass(owner, _Absent):
        return _absent(f'{owner.__module__}.{owner.__qualname__}.{args[1]}')
    return getattr(*args)


def read(path: pathlib.Path) -> Any:
    """Opens a torch file or a pickle without restrictions; tensors come to the CPU."""
    from internvl_dense.safe_format import FileKind, sniff
    from internvl_dense.safe_types import replace_placeholders

    with path.open('rb') as file:
        kind = sniff(path)
        content = _load(file) if kind is FileKind.PICKLE else _torch_load(path, file, kind is FileKind.TORCH_ZIP)
    return replace_placeholders(content, _finish)


def _finish(placeholder: Any) -> Any:
    from internvl_dense.safe_types import Refused

    try:
        return placeholder.finish()
    except Refused:
        return _absent(placeholder.qualified_name)()


def _load(file: IO[bytes], encoding: str = 'latin1', **options: Any) -> Any:
    # latin1: the encoding in which numpy arrays written by Python 2 are read.
    return Unpickler(file, encoding=encoding, **options).load()


def _torch_load(path: pathlib.Path, file: IO[bytes], is_zip: bool) -> Any:
    import torch

    module = types.ModuleType('unrestricted_pickle')  # what torch asks of a pickle module
    vars(module).update(Unpickler=Unpickler, load=_load)
    mmap = is_zip and path.suffix != '.safetensors'  # torch hands a path of that name to another library
    source: Any = path if mmap else file
    return torch.load(source, map_location='cpu', pickle_module=module, weights_only=False, mmap=mmap)


def extract(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the plain content of a file into a folder, and beside it the list of the rest.

    Raises:
        UserError: Nothing in it is plain.
    """
    from internvl_dense.safe_save import keep_plain, save_file

    plain, left_out = keep_plain(read(source))
    save_file(plain, folder / PLAIN)
    (folder / LEFT_OUT).write_text(json.dumps(left_out), encoding='utf-8')
