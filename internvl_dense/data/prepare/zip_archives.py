"""Zip archives: their members, checked, and their contents with checksums."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from internvl_dense.data.prepare.entries import READ_ERRORS, Entry, Load, Source
from internvl_dense.data.prepare.member_rules import (
    Kind,
    Member,
    clean_path,
    faults_between,
    faults_of,
    total_fault,
)
from internvl_dense.errors import UserError

# General purpose bits 0, 6 and 13 of APPNOTE.TXT 4.4.4: encrypted, strongly encrypted, encrypted list.
ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# File types in the upper half of the external attributes, as Unix writers fill it; 0 where they do not.
KINDS: dict[int, Kind] = {
    0: 'file',
    stat.S_IFREG: 'file',
    stat.S_IFDIR: 'folder',
    stat.S_IFLNK: 'symbolic link',
    stat.S_IFBLK: 'device',
    stat.S_IFCHR: 'device',
    stat.S_IFIFO: 'pipe or socket',
    stat.S_IFSOCK: 'pipe or socket',
}


class ZipSource(Source):
    """A zip archive. Its list is read at once.

    Raises:
        UserError: The list at the archive's end cannot be read.
    """

    kind = 'zip'
    has_checksums = True

    def __init__(self, path: Path, explicit: bool = True) -> None:
        super().__init__(path, explicit)
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except READ_ERRORS as error:
            raise UserError(f'{path}: a zip archive of {path.stat().st_size} bytes that cannot be read ({error}); '
                            'a file smaller than its page says is cut off: download it again') from None
        self._infos = {clean_path(info.filename): info for info in infos if not info.is_dir()}
        self.entries = tuple(Entry(self, name, info.file_size) for name, info in self._infos.items())
        members = [_member(info) for info in infos]
        total = total_fault(sum(member.size for member in members), path.stat().st_size)
        self.faults = (
            *(fault for member in members for fault in faults_of(member)),
            *faults_between(members),
            *([total] if total else []),
        )

    @contextmanager
    def reading(self, wanted: Sequence[Entry]) -> Iterator[Iterable[tuple[Entry, Load]]]:
        with zipfile.ZipFile(self.path) as archive:
            yield [(entry, partial(_load, archive, self._infos[entry.path], entry)) for entry in wanted]


def _load(archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Entry) -> bytes:
    """Bytes of one member; zipfile compares their checksum and stops at the size in the list."""
    try:
        data = archive.read(info)
    except READ_ERRORS as error:
        raise UserError(f'damaged in the archive ({error}); download the archive again') from None
    if len(data) != entry.size:
        raise UserError(f'{len(data)} of {entry.size} bytes in the archive; download the archive again')
    return data


def _member(info: zipfile.ZipInfo) -> Member:
    kind = KINDS.get(stat.S_IFMT(info.external_attr >> 16), 'member of unknown kind')
    if info.is_dir() and kind == 'file':
        kind = 'folder'
    # The name as stored: zipfile cuts the other at a zero byte.
    return Member(
        name=info.orig_filename,
        size=info.file_size,
        packed=info.compress_size,
        kind=kind,
        encrypted=bool(info.flag_bits & ENCRYPTED),
        method='' if info.compress_type in METHODS else f'zip method {info.compress_type}',
    )
