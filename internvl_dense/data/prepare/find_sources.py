"""From what the user names to sources: archives, folders, and archives in folders, told by content."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from internvl_dense.data.prepare.entries import Source
from internvl_dense.data.prepare.folders import FolderSource
from internvl_dense.data.prepare.tar_archives import GZIP_MAGIC, TarSource
from internvl_dense.data.prepare.zip_archives import ZipSource
from internvl_dense.errors import UserError, problems

# APPNOTE.TXT of PKWARE, 4.3.7 and 4.3.16: a first member, or the end record of an empty archive.
ZIP_MAGIC = (b'PK\x03\x04', b'PK\x05\x06')
# POSIX pax, "ustar Interchange Format": the magic field.
TAR_MAGIC, TAR_MAGIC_AT = b'ustar', 257
HEAD_BYTES = 512
ARCHIVE_SUFFIXES = ('.zip', '.tar', '.tgz', '.gz')
# Never opened in search of archives in a folder: there may be a quarter of a million of them.
PLAIN_SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.json', '.txt', '.mat', '.pkl', '.md', '.py', '.csv', '.xml'})
WAY_OUT = 'name zip, tar or tar.gz archives as downloaded, or folders that hold them or their content'

Say = Callable[[str], None]


def find_sources(words: Sequence[Path], say: Say) -> list[Source]:
    """Folders first, then archives; each once, whatever ways lead to it.

    Args:
        words: Archives and folders.
        say: Told which archives are being listed, because that takes time.

    Raises:
        UserError: Something named is not there or no archive, or an archive is damaged; all at once.
    """
    faults = [f'{word}: no such file or folder' for word in words if not word.exists()]
    found: dict[Path, Source] = {word.resolve(): FolderSource(word) for word in words if word.is_dir()}
    for path, explicit in _archive_paths(words, list(found.values())):
        if path.resolve() in found:
            continue
        try:
            source = _archive(path, explicit)
        except UserError as error:
            faults.append(str(error))
        else:
            say(f'{path}: {source.kind} archive, {len(source.entries):,} files')
            found[path.resolve()] = source
    if faults:
        raise UserError(problems(f'sources ({WAY_OUT})', faults))
    return list(found.values())


def _archive_paths(words: Sequence[Path], folders: Sequence[Source]) -> Iterator[tuple[Path, bool]]:
    """Archives the user named, then those in folders; the flag tells them apart."""
    yield from ((word, True) for word in words if word.is_file())
    files = [entry.file for folder in folders for entry in folder.entries if entry.file]
    yield from ((file, False) for file in files if _looks_like_archive(file))


def _looks_like_archive(path: Path) -> bool:
    """By name, so that a broken one is not passed over; by content where the name says nothing."""
    suffix = path.suffix.lower()
    return suffix in ARCHIVE_SUFFIXES or (suffix not in PLAIN_SUFFIXES and _kind(_head(path)) is not None)


def _archive(path: Path, explicit: bool) -> Source:
    head = _head(path)
    kind = _kind(head)
    if kind is None:
        raise UserError(f'{path}: neither zip nor tar, but {_guess(head)}')
    return kind(path, explicit)


def _kind(head: bytes) -> type[ZipSource] | type[TarSource] | None:
    if head.startswith(ZIP_MAGIC):
        return ZipSource
    is_tar = head.startswith(GZIP_MAGIC) or head[TAR_MAGIC_AT:].startswith(TAR_MAGIC)
    return TarSource if is_tar else None


def _guess(head: bytes) -> str:
    if not head:
        return 'an empty file'
    if head.lstrip()[:1] == b'<':
        return 'a web page: the download failed, open the file to read why'
    return f'a file that begins with {head[:8].hex(" ")}'


def _head(path: Path) -> bytes:
    try:
        with path.open('rb') as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from None
