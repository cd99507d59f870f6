"""One process at a time."""

from __future__ import annotations

import errno
import fcntl

import pytest

from internvl_dense.errors import UserError
from internvl_dense.hub.locks import locked


def test_the_second_is_refused_until_the_first_is_done(tmp_path):
    place = tmp_path / 'new' / 'file'
    with locked(place) as has_locks:
        assert has_locks and (tmp_path / 'new' / 'file.lock').exists()
        with pytest.raises(UserError, match='another process is fetching .*file: wait until it is done'), locked(place):
            raise AssertionError('two hold the lock')
        with locked(tmp_path / 'new' / 'other'):  # another file of the same folder
            assert (tmp_path / 'new' / 'file.lock').exists()
    assert not list((tmp_path / 'new').iterdir())
    with locked(place):
        pass


def test_the_lock_goes_away_with_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / 'file'):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_the_leftover_of_a_killed_process_does_no_harm(tmp_path):
    (tmp_path / 'file.lock').touch()
    with locked(tmp_path / 'file') as has_locks:
        assert has_locks


@pytest.mark.parametrize('successor', [False, True])
def test_a_lock_that_was_deleted_between_opening_and_locking(tmp_path, monkeypatch, successor):
    """The holder before us ends in that moment; its file is gone, or is that of a third process."""
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        (tmp_path / 'file.lock').unlink()
        if successor:
            (tmp_path / 'file.lock').touch()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, 'flock', late)
    with pytest.raises(UserError, match='until just now: run again'), locked(tmp_path / 'file'):
        raise AssertionError('this lock keeps nobody out')
    assert (tmp_path / 'file.lock').exists() is successor


@pytest.mark.parametrize('code', [errno.ENOLCK, errno.EIO])
def test_file_systems_without_locks(tmp_path, monkeypatch, code):
    def none(descriptor: int, operation: int) -> None:
        raise OSError(code, 'as a parallel file system answers')

    monkeypatch.setattr(fcntl, 'flock', none)
    if code == errno.EIO:
        with pytest.raises(OSError, match='parallel'), locked(tmp_path / 'file'):
            raise AssertionError('not an answer of a system without locks')
    else:
        with locked(tmp_path / 'file') as has_locks:
            assert not has_locks
