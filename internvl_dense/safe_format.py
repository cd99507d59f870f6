"""Tells what kind of file a checkpoint is, and which classes it names, without executing anything in it."""

from __future__ import annotations

import _compat_pickle
import enum
import io
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# First pickle of a file written by torch.save before version 1.6 (torch.serialization.MAGIC_NUMBER).
_LEGACY_HEAD = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
# Magic number, protocol, system, content, storage keys: the pickles of such a file.
_LEGACY_PICKLES = 5
_TAR_MAGIC_AT = 257  # POSIX ustar header
_SAFETENSORS_HEADER_LIMIT = 100_000_000  # bytes, the limit of the safetensors format
_SCAN_LIMIT = 1 << 28  # bytes of pickle that are searched for names


class FileKind(enum.Enum):
    """Kinds of files people hand over as weights; the value says it in words."""

    SAFETENSORS = 'a safetensors file'
    TORCH_ZIP = 'a torch file'
    TORCH_LEGACY = 'a torch file written before torch 1.6'
    TORCHSCRIPT = 'a TorchScript archive'
    TAR = 'a tar archive (the torch format of 2016, or a packed folder)'
    ZIP = 'a zip archive that torch.save did not write'
    BROKEN_ZIP = 'a torch file whose end is missing'
    PICKLE = 'a plain pickle, which torch.save did not write'
    HTML = 'an HTML page'
    LFS = 'a git-lfs pointer'
    JSON = 'JSON text'
    GZIP = 'a gzip archive'
    HDF5 = 'an HDF5 file'
    NUMPY = 'a numpy .npy file'
    GGUF = 'a GGUF file'
    EMPTY = 'empty'
    UNKNOWN = 'of an unknown format'


_HEADS = (
    (b'version https://git-lfs', FileKind.LFS),
    (b'\x1f\x8b', FileKind.GZIP),
    (b'\x89HDF', FileKind.HDF5),
    (b'\x93NUMPY', FileKind.NUMPY),
    (b'GGUF', FileKind.GGUF),
    (_LEGACY_HEAD, FileKind.TORCH_LEGACY),
    (b'\x80', FileKind.PICKLE),
)


def sniff(path: Path) -> FileKind:
    """Kind of the file by its content; the suffix does not count."""
    size = path.stat().st_size
    with path.open('rb') as file:
        head = file.read(512)
    if not head:
        return FileKind.EMPTY
    if _is_safetensors(head, size):
        return FileKind.SAFETENSORS
    if head.startswith(b'PK'):
        return _kind_of_zip(path)
    if head[_TAR_MAGIC_AT:_TAR_MAGIC_AT + 5] == b'ustar':
        return FileKind.TAR
    for magic, kind in _HEADS:
        if head.startswith(magic):
            return kind
    return _kind_of_text(path, head)


def _is_safetensors(head: bytes, size: int) -> bool:
    """Eight bytes with the length of a JSON header, then the header."""
    if len(head) < 9:
        return False
    length: int = struct.unpack('<Q', head[:8])[0]
    return head[8:9] == b'{' and length <= min(size, _SAFETENSORS_HEADER_LIMIT)


def _kind_of_zip(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition('/')[2] for name in archive.namelist()}
    except zipfile.BadZipFile:
        return FileKind.BROKEN_ZIP
    if 'constants.pkl' in names:
        return FileKind.TORCHSCRIPT
    return FileKind.TORCH_ZIP if 'data.pkl' in names else FileKind.ZIP


def _kind_of_text(path: Path, head: bytes) -> FileKind:
    start = head.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if start.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return FileKind.HTML
    if start.startswith((b'{', b'[')):
        return FileKind.JSON
    # Pickles of protocol 0 and 1 have no magic number: they are those that read as one.
    with path.open('rb') as file:
        complete = any(name == 'STOP' for name, _ in _opcodes(file))
    return FileKind.PICKLE if complete else FileKind.UNKNOWN


def zip_members(path: Path) -> list[str]:
    """Names in a zip archive."""
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def named_globals(path: Path, kind: FileKind) -> list[str]:
    """Names of all classes and functions the pickles of a file ask for, as 'module.name', in order.

    Used to word errors. It is no guard: torch's restricted reader decides what is refused.
    """
    names: dict[str, None] = {}
    for stream, pickles in _pickle_streams(path, kind):
        for _ in range(pickles):
            names.update(dict.fromkeys(_globals(stream)))
    return list(names)


def _pickle_streams(path: Path, kind: FileKind) -> Iterator[tuple[BinaryIO, int]]:
    if kind is FileKind.TORCH_ZIP:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.rpartition('/')[2] == 'data.pkl' and info.file_size < _SCAN_LIMIT:
                    try:
                        yield io.BytesIO(archive.read(info)), 1
                    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
                        return  # a damaged member: the caller has torch's own words for it
    elif kind in (FileKind.TORCH_LEGACY, FileKind.PICKLE):
        with path.open('rb') as file:
            yield file, _LEGACY_PICKLES if kind is FileKind.TORCH_LEGACY else 1


def _opcodes(stream: BinaryIO) -> Iterator[tuple[str, object]]:
    """Opcodes and arguments of one pickle, up to its end or to the first byte that is none."""
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            yield opcode.name, argument
    except (ValueError, struct.error, OverflowError, MemoryError):
        return


def _globals(stream: BinaryIO) -> Iterator[str]:
    strings: list[str] = []
    memo: dict[int, str] = {}
    for name, argument in _opcodes(stream):
        if name in ('GLOBAL', 'INST'):
            yield modern_name(*str(argument).split(' ', 1))
        elif name == 'STACK_GLOBAL':
            yield modern_name(*strings[-2:]) if len(strings) > 1 else 'a computed name'
        elif 'UNICODE' in name or name in ('STRING', 'BINSTRING', 'SHORT_BINSTRING'):
            strings.append(str(argument))
        elif name in ('BINGET', 'LONG_BINGET', 'GET') and argument in memo:
            strings.append(memo[int(str(argument))])
        elif name in ('BINPUT', 'LONG_BINPUT', 'PUT', 'MEMOIZE') and strings:
            memo[len(memo) if argument is None else int(str(argument))] = strings[-1]


def modern_name(module: str, name: str) -> str:
    """Python 3 spelling of a name: old protocols write `__builtin__` for `builtins`."""
    renamed = _compat_pickle.NAME_MAPPING.get((module, name))
    if renamed is None:
        renamed = (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
    return '.'.join(renamed)
