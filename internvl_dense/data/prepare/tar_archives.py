"""Tar archives, plain or gzip: their members, checked, and their contents in the order of the archive."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from internvl_dense.data.prepare.entries import READ_ERRORS, Entry, Load, Source
from internvl_dense.data.prepare.member_rules import (
    MAX_MEMBER_BYTES,
    MIB,
    Kind,
    Member,
    clean_path,
    faults_between,
    faults_of,
    total_fault,
)
from internvl_dense.errors import UserError

GZIP_MAGIC = b'\x1f\x8b'
TAR_ERRORS = (*READ_ERRORS, tarfile.TarError)
# Longest single read: tarfile reads an extended header whole, whatever size it claims.
MAX_HEADER_BYTES = MIB
# Zeros after the end mark: writers fill their last record, of 10 KiB by default.
MAX_TAIL_BYTES = 16 * MIB
KINDS: dict[bytes, Kind] = {
    tarfile.REGTYPE: 'file',
    tarfile.AREGTYPE: 'file',
    tarfile.DIRTYPE: 'folder',
    tarfile.SYMTYPE: 'symbolic link',
    tarfile.LNKTYPE: 'hard link',
    tarfile.CHRTYPE: 'device',
    tarfile.BLKTYPE: 'device',
    tarfile.FIFOTYPE: 'pipe or socket',
    tarfile.GNUTYPE_SPARSE: 'sparse file',
}


class TarSource(Source):
    """A tar archive. Its list is read at once, which for .tar.gz means unpacking it in memory, a block at a time.

    Raises:
        UserError: The archive is cut off or damaged.
    """

    kind = 'tar'

    def __init__(self, path: Path, explicit: bool = True) -> None:
        super().__init__(path, explicit)
        self.has_checksums = _is_gzip(path)
        members: list[Member] = []
        faults: list[str] = []
        try:
            with _open(path) as stream:
                self.is_cut_short = _list(stream, path.stat().st_size, members, faults)
        except TAR_ERRORS as error:
            raise UserError(f'{path}: a tar archive of {path.stat().st_size} bytes that cannot be read ({error}); '
                            'a file smaller than its page says is cut off: download it again') from None
        self.entries = tuple(
            Entry(self, clean_path(member.name), member.size) for member in members if member.kind == 'file')
        self.faults = (*faults, *faults_between(members))

    @contextmanager
    def reading(self, wanted: Sequence[Entry]) -> Iterator[Iterable[tuple[Entry, Load]]]:
        with _open(self.path) as stream:
            yield self._in_order(stream, {entry.path: entry for entry in wanted})

    def _in_order(self, stream: _Stream, wanted: dict[str, Entry]) -> Iterator[tuple[Entry, Load]]:
        """One pass; a compressed stream cannot be entered in its middle."""
        try:
            for info in _tar(stream):
                entry = wanted.pop(clean_path(info.name), None)
                if entry is not None:
                    yield entry, _given(_content(stream, info))
                if not wanted:
                    return
        except TAR_ERRORS as error:
            raise UserError(f'{self.path}: damaged ({error}); download the archive again') from None
        raise UserError(f'{self.path}: {len(wanted)} members are gone since it was listed; was it replaced?')


class _Stream:
    """A file that refuses long reads and remembers its last one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.last = b''

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f'a header of {size} bytes, {MAX_HEADER_BYTES} allowed')
        self.last = self._file.read(size)
        return self.last

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()

    def rest(self) -> int:
        """Number of bytes to the end, counted no further than allowed; for gzip, the checksum is compared there."""
        count = 0
        while count <= MAX_TAIL_BYTES and self.read(MIB):
            count += len(self.last)
        return count


def _is_gzip(path: Path) -> bool:
    with path.open('rb') as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


@contextmanager
def _open(path: Path) -> Iterator[_Stream]:
    with path.open('rb') as file:
        if _is_gzip(path):
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield _Stream(cast(IO[bytes], unpacked))
        else:
            yield _Stream(file)


def _tar(stream: _Stream) -> Iterator[tarfile.TarInfo]:
    # Members are not kept: a hundred thousand of them cost memory and nobody asks again.
    tar = tarfile.TarFile(fileobj=cast(IO[bytes], stream), mode='r')
    while (info := tar.next()) is not None:
        yield info
        tar.members.clear()  # type: ignore[attr-defined]  # missing from the type stubs


def _list(stream: _Stream, archive_bytes: int, members: list[Member], faults: list[str]) -> bool:
    """Fills both lists; returns whether it stopped early, at a size that should not be unpacked even to skip it."""
    unpacked = 0
    for info in _tar(stream):
        member = _member(info)
        members.append(member)
        faults += _all_faults(member, info)
        unpacked += member.size
        bomb = total_fault(unpacked, archive_bytes)
        faults += [bomb] if bomb else []
        if bomb or member.size > MAX_MEMBER_BYTES:
            return True
    # tarfile ends quietly at whatever is no header.
    if stream.last.strip(b'\0') or len(stream.last) != tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f'no end mark after {len(members)} members')
    if stream.rest() > MAX_TAIL_BYTES:
        faults.append(f'more than {MAX_TAIL_BYTES} bytes after the end mark')
    return False


def _all_faults(member: Member, info: tarfile.TarInfo) -> list[str]:
    """Our rules, then the standard library's for data archives as a second opinion."""
    faults = list(faults_of(member))
    try:
        tarfile.data_filter(info, '.')
    except tarfile.FilterError as error:
        faults += [] if faults else [f'member {member.name!r}: refused by tarfile ({error})']
    return faults


def _member(info: tarfile.TarInfo) -> Member:
    kind = 'sparse file' if info.issparse() else KINDS.get(info.type, 'member of unknown kind')
    return Member(name=info.name, size=info.size, kind=kind)


def _content(stream: _Stream, info: tarfile.TarInfo) -> bytes:
    """Bytes of one member, in pieces that the stream allows."""
    stream.seek(info.offset_data)
    pieces: list[bytes] = []
    left = info.size
    while left:
        piece = stream.read(min(left, MAX_HEADER_BYTES))
        if not piece:
            raise tarfile.ReadError(f'{info.name}: {info.size - left} of {info.size} bytes')
        pieces.append(piece)
        left -= len(piece)
    return b''.join(pieces)


def _given(data: bytes) -> Load:
    return lambda: data
