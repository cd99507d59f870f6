from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_dense.data.prepare.workspace import Workspace
from internvl_dense.errors import UserError
from tests.data.prepare.miniatures import tree

ROOT = Path(__file__).resolve().parents[3]
TARGETS = [Path('a/1.png'), Path('b/2.png')]


def workspace(root: Path, **origin: object) -> Workspace:
    return Workspace(root, TARGETS, origin)


def fail(root: Path, place: bool, **origin: object) -> None:
    with pytest.raises(ZeroDivisionError):
        with workspace(root, **origin) as work:
            if place:
                work.place(TARGETS[0], b'one')
            raise ZeroDivisionError


def test_nothing_but_files_remains(tmp_path: Path) -> None:
    root = tmp_path / 'new' / 'set'
    with workspace(root) as work:
        assert work.place(TARGETS[0], b'one') == 'written'
    assert tree(tmp_path).keys() == {'new/set/a/1.png'}
    assert not (root / 'b').exists(), 'an empty folder that it made'


def test_failure_without_files_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / 'mine').mkdir()
    fail(tmp_path / 'mine' / 'set', place=False)
    assert list(tmp_path.rglob('*')) == [tmp_path / 'mine']


def test_empty_folders_of_the_user_stay(tmp_path: Path) -> None:
    (tmp_path / 'b').mkdir()
    fail(tmp_path, place=False)
    assert list(tmp_path.iterdir()) == [tmp_path / 'b']


def test_files_of_a_failed_run_are_trusted_if_their_origin_is_the_same(tmp_path: Path) -> None:
    fail(tmp_path, place=True, source='x')
    assert not list(tmp_path.rglob('*.tmp'))
    with workspace(tmp_path, source='x') as work:
        assert work.trusts_existing
    fail(tmp_path, place=True, source='x')
    with workspace(tmp_path, source='y') as work:
        assert not work.trusts_existing


def test_files_of_unknown_origin_are_not_trusted_later_either(tmp_path: Path) -> None:
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / '2.png').write_bytes(b'someone else')
    fail(tmp_path, place=True)
    with workspace(tmp_path) as work:
        assert not work.trusts_existing


def test_drafts_of_a_killed_run_go(tmp_path: Path) -> None:
    work = tmp_path / '.prepare-data'
    work.mkdir()
    (work / '3.tmp').write_bytes(b'half')
    (tmp_path / '3.tmp').write_bytes(b'mine')
    with workspace(tmp_path):
        assert not (work / '3.tmp').exists()
    assert tree(tmp_path).keys() == {'3.tmp'}


def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path) -> None:
    with workspace(tmp_path) as first:
        with pytest.raises(UserError, match='another prepare-data is at work there'):
            workspace(tmp_path).__enter__()
        first.place(TARGETS[0], b'one')
    assert (tmp_path / 'a' / '1.png').read_bytes() == b'one'


def test_links_where_possible(tmp_path: Path) -> None:
    original = tmp_path / 'original'
    original.write_bytes(b'one')
    (tmp_path / 'link').symlink_to(original)
    with workspace(tmp_path / 'set') as work:
        assert work.place(TARGETS[0], b'one', tmp_path / 'link') == 'linked'
    made = tmp_path / 'set' / 'a' / '1.png'
    assert made.samefile(original) and not made.is_symlink()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / 'a').write_text('a file')
    with pytest.raises(UserError, match='cannot be written: (Not a directory|File exists)'):
        workspace(tmp_path / 'set').__enter__()
    assert tree(tmp_path).keys() == {'set/a'} and not (tmp_path / 'set' / '.prepare-data').exists()


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from internvl_dense.data.prepare.workspace import Workspace
from internvl_dense.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    with Workspace(Path({out!r}), [Path('a/1.png'), Path('b/2.png')], {{}}) as work:
        work.place(Path('a/1.png'), bytes(9_000))
        work.place(Path('b/2.png'), bytes(90_000))
except UserError as error:
    print(error)
"""


def test_a_file_that_does_not_fit_is_not_left_in_part(tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: both end a write in its middle."""
    code = LIMITED.format(root=str(ROOT), out=str(tmp_path / 'out'))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ})
    assert f'{tmp_path}/out/b/2.png cannot be written: File too large.' in done.stdout, done.stderr
    assert tree(tmp_path).keys() == {'out/a/1.png', 'out/.prepare-data/started.json'}
