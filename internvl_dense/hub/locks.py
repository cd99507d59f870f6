"""One process at a time for each destination."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
from collections.abc import Iterator

from internvl_dense.errors import UserError

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # some parallel file systems are mounted without locks


@contextlib.contextmanager
def locked(place: pathlib.Path) -> Iterator[bool]:
    """Keeps other processes from fetching to `place`, with a lock file beside it that goes away afterwards.

    The system frees the lock of a process that dies, so what a killed one leaves behind does no harm.

    Yields:
        Whether the file system has locks at all.

    Raises:
        UserError: Another process holds the lock, or held it until just now.
    """
    path = place.with_name(f'{place.name}.lock')
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('wb') as file:
        has_locks = _acquire(file.fileno(), place)
        # The process before this one deletes the file that it holds; a lock on a deleted file keeps nobody out.
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise UserError(f'another process was fetching {place} until just now: run again')
        try:
            yield has_locks
        finally:
            path.unlink(missing_ok=True)


def _acquire(descriptor: int, place: pathlib.Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f'another process is fetching {place}: wait until it is done') from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True
