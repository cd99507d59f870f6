"""Folders that hold an extracted data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from internvl_dense.data.file_pairs import walk_files
from internvl_dense.data.prepare.entries import Entry, Load, Source
from internvl_dense.errors import UserError

# Where a run keeps its unfinished files; never a source.
WORK_FOLDER = '.prepare-data'


class FolderSource(Source):
    """All files below a folder. Paths begin with the folder's own name, so that `train2017/` may be named alone."""

    kind = 'folder'
    has_checksums = False

    def __init__(self, path: Path, explicit: bool = True) -> None:
        super().__init__(path, explicit)
        above = Path(path.resolve().name)
        files = sorted(file for file in walk_files(path) if file.parent.name != WORK_FOLDER)
        self.entries = tuple(
            Entry(self, (above / file.relative_to(path)).as_posix(), file.stat().st_size, file)
            for file in files if file.is_file())

    @contextmanager
    def reading(self, wanted: Sequence[Entry]) -> Iterator[Iterable[tuple[Entry, Load]]]:
        yield [(entry, partial(_load, entry)) for entry in wanted]


def _load(entry: Entry) -> bytes:
    assert entry.file is not None, entry
    try:
        return entry.file.read_bytes()
    except OSError as error:
        raise UserError(f'cannot be read ({error.strerror})') from None
