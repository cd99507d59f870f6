"""What a member of an archive must be before anything of it is written.

Archives come from mirrors and colleagues. Nothing here relies on the reader's own protection: names are never used as
paths before they passed, and sizes are compared before data is unpacked.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal['file', 'folder', 'symbolic link', 'hard link', 'device', 'pipe or socket', 'sparse file',
               'member of unknown kind']

GIB = 2**30
MIB = 2**20
# The largest published file, instances_train2017.json, has 0.5 GB.
MAX_MEMBER_BYTES = 2 * GIB
# Text shrinks about tenfold and images hardly; deflate cannot exceed 1032 (zlib's technical details), bombs come near.
MAX_RATIO = 200
# Below this, no ratio can do harm.
RATIO_FREE_BYTES = MIB

CONTROL = re.compile('[\x00-\x1f\x7f]')
DRIVE = re.compile('[A-Za-z]:')


@dataclass(frozen=True)
class Member:
    """A row of an archive's list.

    Args:
        name: As stored.
        size: Bytes once unpacked, as the archive says.
        packed: Bytes in the archive; None where only the whole archive is compressed.
        kind: What it would become.
        encrypted: Needs a password.
        method: Compression that is neither 'stored' nor 'deflate', else ''.
    """

    name: str
    size: int
    packed: int | None = None
    kind: Kind = 'file'
    encrypted: bool = False
    method: str = ''


def clean_path(name: str) -> str:
    """The name without './' and doubled slashes."""
    return '/'.join(part for part in name.split('/') if part not in ('', '.'))


def faults_of(member: Member) -> Iterator[str]:
    """Every rule that one member breaks."""
    shown = f'member {member.name!r}'
    yield from (f'{shown}: {fault}' for fault in _name_faults(member.name))
    if member.kind == 'file' and not clean_path(member.name):
        yield f'{shown}: no name'
    if member.kind not in ('file', 'folder'):
        yield f'{shown}: a {member.kind}; only files and folders are taken'
    if member.encrypted:
        yield f'{shown}: encrypted; the published archives are not'
    if member.method:
        yield f'{shown}: compressed by {member.method}, which is not read; unpack it and name the folder instead'
    yield from (f'{shown}: {fault}' for fault in _size_faults(member))


def faults_between(members: Iterable[Member]) -> Iterator[str]:
    """Members that would be one path on some file system: same name, or same but for case or Unicode form."""
    seen: dict[str, Member] = {}
    files: dict[str, str] = {}
    for member in members:
        key = unicodedata.normalize('NFC', clean_path(member.name)).casefold()
        first = seen.setdefault(key, member)
        if first is not member and not (first.kind == member.kind == 'folder'):
            yield f'members {first.name!r} and {member.name!r}: two for one path'
        if member.kind != 'folder':
            files[key] = member.name
    parents: set[str] = set()
    for key in seen:
        parent = key.rpartition('/')[0]
        while parent and parent not in parents:
            parents.add(parent)
            parent = parent.rpartition('/')[0]
    yield from (f'member {name!r}: a file and a folder of one name' for key, name in files.items() if key in parents)


def total_fault(unpacked: int, archive_bytes: int) -> str:
    """A fault where the whole would grow like a decompression bomb, else ''."""
    if unpacked <= RATIO_FREE_BYTES or unpacked <= MAX_RATIO * archive_bytes:
        return ''
    return (f'{archive_bytes} bytes would unpack to at least {unpacked}, more than {MAX_RATIO} times as much: '
            'a decompression bomb')


def _name_faults(name: str) -> Iterator[str]:
    if CONTROL.search(name):
        yield 'control characters in the name'
    if '\\' in name:
        yield 'a backslash in the name, which is a folder on some systems'
    if name.startswith('/'):
        yield 'an absolute path'
    if DRIVE.match(name):
        yield 'a path with a drive letter'
    if '..' in name.split('/'):
        yield "a path with '..', which leads out of the folder"


def _size_faults(member: Member) -> Iterator[str]:
    if not 0 <= member.size <= MAX_MEMBER_BYTES:
        yield f'{member.size} bytes, {MAX_MEMBER_BYTES} allowed'
    elif member.packed is not None and member.size > max(RATIO_FREE_BYTES, MAX_RATIO * member.packed):
        yield (f'{member.packed} bytes would unpack to {member.size}, more than {MAX_RATIO} times as much: '
               'a decompression bomb')
