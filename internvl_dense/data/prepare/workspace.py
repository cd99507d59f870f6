"""Where files are made before they get their names: one folder in the data set, locked, and gone in the end."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from internvl_dense.data.prepare.folders import WORK_FOLDER
from internvl_dense.errors import UserError

How = Literal['linked', 'written']

LOCK, STARTED = 'lock', 'started.json'
# Another disk, a file system without hard links or another owner's file, too many links to one file.
NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})


class Workspace:
    """Use as a context. A file appears under its name only when it is complete.

    Left by an error or an interrupt, it removes its unfinished files and the folders it made and did not fill; files
    that were finished stay, with a note by which the next run knows them for its own.

    Args:
        root: The data set folder.
        targets: Files to be made, below `root`.
        origin: What decides their content; another run's files are trusted only if this is the same.

    Raises:
        UserError: Another run is at work in the folder, or it cannot be written.
    """

    def __init__(self, root: Path, targets: Iterable[Path], origin: Mapping[str, Any]) -> None:
        self.root = root
        self.folder = root / WORK_FOLDER
        self.trusts_existing = False
        self.notes: list[str] = []
        self._targets = list(targets)
        self._origin = json.dumps(origin, indent=1, sort_keys=True) + '\n'
        self._made: list[Path] = []
        self._numbers = itertools.count()
        self._lock: IO[str] | None = None
        self._placed = 0

    def __enter__(self) -> Workspace:
        try:
            self._make_folders({self.folder, *(self.root / target.parent for target in self._targets)})
            self._take_lock()
            self._remove_drafts()
            self._begin()
        except OSError as error:
            self._leave(False)
            raise _cannot(error, self.root) from None
        except UserError:
            self._leave(False)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self._leave(done=kind is None)

    def place(self, target: Path, data: bytes, original: Path | None = None) -> How:
        """Makes one file, from any thread.

        Args:
            target: Below the data set folder. What is there is replaced: not for files that are not ours.
            data: Its bytes.
            original: A file that holds them; a hard link is made to it where the file system can.

        Raises:
            UserError: The disk is full, or not writable.
        """
        draft = self.folder / f'{next(self._numbers)}.tmp'
        try:
            how: How = 'linked' if original is not None and _link(original, draft) else 'written'
            if how == 'written':
                with draft.open('xb') as file:
                    file.write(data)
            os.rename(draft, self.root / target)
        except OSError as error:
            raise _cannot(error, self.root / target) from None
        self._placed += 1
        return how

    def _make_folders(self, folders: Iterable[Path]) -> None:
        for folder in sorted(folders):
            for place in [*reversed(folder.parents), folder]:
                if not place.is_dir():
                    place.mkdir()
                    self._made.append(place)

    def _take_lock(self) -> None:
        self._lock = (self.folder / LOCK).open('w')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise UserError(f'{self.root}: another prepare-data is at work there; wait for it') from None
        except OSError as error:
            self.notes.append(f'{self.folder}: cannot be locked ({error.strerror}); start no second run there')

    def _begin(self) -> None:
        """Notes what this run makes; not where files are in place that no one vouches for."""
        started = self.folder / STARTED
        self.trusts_existing = started.is_file() and started.read_text(encoding='utf-8') == self._origin
        if self.trusts_existing:
            return
        started.unlink(missing_ok=True)
        if not any(os.path.lexists(self.root / target) for target in self._targets):
            draft = self.folder / f'{next(self._numbers)}.tmp'
            draft.write_text(self._origin, encoding='utf-8')
            draft.rename(started)

    def _remove_drafts(self) -> None:
        for draft in self.folder.glob('*.tmp'):
            draft.unlink()

    def _leave(self, done: bool) -> None:
        if self._lock is not None:
            self._remove_drafts()
            if done or not (self._placed or self.trusts_existing):
                (self.folder / STARTED).unlink(missing_ok=True)
            (self.folder / LOCK).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None
        # The folder may have been made by an earlier run.
        for place in [self.folder, *reversed(self._made)]:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()


def _link(original: Path, draft: Path) -> bool:
    try:
        # Not to a symbolic link, which would be a link to its name alone.
        os.link(original.resolve(), draft)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        return False
    return True


def _cannot(error: OSError, path: Path) -> UserError:
    hint = ' Make room and start again: finished files are kept.' if error.errno in (errno.ENOSPC, errno.EDQUOT) else ''
    return UserError(f'{path} cannot be written: {error.strerror}.{hint}')
