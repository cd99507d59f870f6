"""Where the files of a fetch lie: finished, unfinished and recorded."""

from __future__ import annotations

import dataclasses
import pathlib

from internvl_dense.backbones.fingerprint import file_sha256
from internvl_dense.errors import UserError
from internvl_dense.hub.client import RemoteFile
from internvl_dense.hub.records import FOLDER_RECORD, Entry, Record, read_record
from internvl_dense.hub.sources import Source

PART = '.part'  # ending of what is not complete


@dataclasses.dataclass(frozen=True)
class Bundle:
    """Files with one record: a single file, or a folder that gets its name once all its files are complete.

    Args:
        place: The finished file or folder.
        file: Name of the single file; None for a folder.
    """

    place: pathlib.Path
    file: str | None

    @property
    def work(self) -> pathlib.Path:
        """Folder where the files are now: for a folder under way, its name with '.part'."""
        if self.file is not None:
            return self.place.parent
        return self.place if self.place.exists() else self.place.with_name(self.place.name + PART)

    @property
    def record_path(self) -> pathlib.Path:
        """Where the record is."""
        return self.work / (FOLDER_RECORD if self.file is None else f'{self.file}.json')

    def record(self) -> Record | None:
        """The record, if there is one.

        Raises:
            UserError: The file in its place is something else.
        """
        return read_record(self.record_path)

    def is_verified(self) -> bool:
        """Whether all is here, with the sizes and checksums of the record of a finished fetch.

        Raises:
            UserError: The fetch was finished, and a file is not what was fetched.
        """
        record = self.record()
        if record is None or record.fetched is None or not self.place.exists():
            return False
        for entry in record.files:
            path = self.work / entry.file
            if not path.exists():
                raise UserError(f'{path} was fetched and is missing: move {self.place} away and run again')
            size = path.stat().st_size
            if size != entry.size or file_sha256(path) != entry.sha256:
                raise UserError(
                    f'{path} is no longer what was fetched ({size} bytes; the record has {entry.size} bytes, sha256 '
                    f'{entry.sha256}): move it away and run again, or choose another --to')
        return True


@dataclasses.dataclass(frozen=True)
class Step:
    """One file of a bundle, compared with what the server announces.

    Args:
        bundle: What it belongs to.
        remote: What the server announces.
        have: Bytes that are here and need no download.
        part_size: Bytes of the unfinished file; with other content, they do not count and are begun anew.
        entry: The finished file, if it is here.
        fault: Why it cannot be fetched to this place, in one sentence; empty if it can.
    """

    bundle: Bundle
    remote: RemoteFile
    have: int
    part_size: int = 0
    entry: Entry | None = None
    fault: str = ''

    @property
    def path(self) -> pathlib.Path:
        """Where the file is put as soon as it is complete."""
        return self.bundle.work / self.remote.file

    @property
    def part(self) -> pathlib.Path:
        """Where it grows."""
        return self.bundle.work / f'{self.remote.file}{PART}'

    @property
    def missing(self) -> int:
        """Bytes still to download."""
        return max((self.remote.size or 0) - self.have, 0)

    def is_outdated(self) -> bool:
        """Whether the disk has changed since the comparison."""
        return self.path.exists() != (self.entry is not None) or _size(self.part) != self.part_size


def bundles_of(source: Source, folder: pathlib.Path) -> list[Bundle]:
    """The bundles of a source, when it is fetched to `folder`."""
    if source.folder is not None:
        return [Bundle(folder / source.folder, None)]
    return [Bundle(folder / file, file) for file in source.files]


def survey(bundle: Bundle, remote: RemoteFile) -> Step:
    """Compares what is on the disk with what the server announces of a file."""
    step = Step(bundle, remote, have=0)
    step = dataclasses.replace(step, part_size=_size(step.part))
    record = bundle.record()
    if step.path.exists():
        entry = _same(step.path, remote, record)
        fault = '' if entry else (
            f'{step.path} exists and is not, or cannot be shown to be, {remote.file} of commit {remote.commit}: move '
            'it away, or choose another --to')
        return dataclasses.replace(step, have=remote.size or 0, entry=entry, fault=fault)
    if bundle.file is None and bundle.place.exists():
        return dataclasses.replace(step, fault=(
            f'{bundle.place} exists without {remote.file}: move it away, or choose another --to'))
    usable = step.part_size <= (remote.size or 0) and _continues(remote, record)
    return dataclasses.replace(step, have=step.part_size if usable else 0)


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _continues(remote: RemoteFile, record: Record | None) -> bool:
    """Whether a recorded file has the content of `remote`."""
    entry = record.entry(remote.file) if record else None
    if record is None or entry is None or record.repo != remote.repo:
        return False
    return record.commit == remote.commit or (entry.sha256 is not None and entry.sha256 == remote.sha256)


def _same(path: pathlib.Path, remote: RemoteFile, record: Record | None) -> Entry | None:
    """The entry of a finished file that has the content of `remote`, else None."""
    size = path.stat().st_size
    if size != remote.size or (remote.sha256 is None and not _continues(remote, record)):
        return None
    digest = file_sha256(path)
    return Entry(remote.file, size, digest) if remote.sha256 in (None, digest) else None
