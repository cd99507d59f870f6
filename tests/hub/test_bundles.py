"""What the disk holds of a fetch."""

from __future__ import annotations

import dataclasses

import pytest

from internvl_dense.errors import UserError
from internvl_dense.hub.bundles import Bundle, Step, bundles_of, survey
from internvl_dense.hub.client import RemoteFile
from internvl_dense.hub.records import Entry, Record, write_record
from internvl_dense.hub.sources import Source
from tests.fetches import CONTENT, FILE, SHA256

REMOTE = RemoteFile('a/b', FILE, 'c1', len(CONTENT), SHA256, 'u')
BEGUN = Record('a/b', 'main', 'c1', 'MIT', 'e', (Entry(FILE, len(CONTENT), SHA256),))
UNKNOWN = Record('a/b', 'main', 'c1', 'MIT', 'e', (Entry(FILE, len(CONTENT), None),))


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return Bundle(tmp_path / FILE, FILE)


def test_bundles_of(tmp_path):
    assert bundles_of(Source('n', 'a/b', 'MIT', files=('1', '2')), tmp_path) == [
        Bundle(tmp_path / '1', '1'), Bundle(tmp_path / '2', '2')]
    assert bundles_of(Source('n', 'a/b', 'MIT', folder='b'), tmp_path) == [Bundle(tmp_path / 'b', None)]


def test_a_folder_works_under_another_name(tmp_path):
    bundle = Bundle(tmp_path / 'b', None)
    assert bundle.work == tmp_path / 'b.part' and bundle.record_path == tmp_path / 'b.part' / 'fetched.json'
    (tmp_path / 'b').mkdir()
    assert bundle.work == tmp_path / 'b'


def test_nothing_is_here(bundle):
    step = survey(bundle, REMOTE)
    assert step == Step(bundle, REMOTE, have=0) and step.missing == len(CONTENT) and not bundle.is_verified()


@pytest.mark.parametrize('record, remote, have', [
    (BEGUN, REMOTE, 1000),
    (UNKNOWN, REMOTE, 1000),
    (BEGUN, dataclasses.replace(REMOTE, commit='c2'), 1000),  # the same content in a later commit
    (BEGUN, dataclasses.replace(REMOTE, commit='c2', sha256='0' * 64), 0),
    (UNKNOWN, dataclasses.replace(REMOTE, commit='c2', sha256=None), 0),
    (dataclasses.replace(BEGUN, repo='c/d'), REMOTE, 0),
    (BEGUN, dataclasses.replace(REMOTE, size=999), 0),
    (BEGUN, dataclasses.replace(REMOTE, file='other'), 0),
    (None, REMOTE, 0),
])
def test_an_unfinished_file(bundle, record, remote, have):
    if record:
        write_record(bundle.record_path, record)
    step = Step(bundle, remote, 0)
    step.part.write_bytes(CONTENT[:1000])
    step = survey(bundle, remote)
    assert (step.have, step.part_size, step.missing) == (have, 1000, remote.size - have) and not step.fault


@pytest.mark.parametrize('record, content, remote, accepted', [
    (None, CONTENT, REMOTE, True),
    (None, CONTENT, dataclasses.replace(REMOTE, sha256=None), False),
    (UNKNOWN, CONTENT, dataclasses.replace(REMOTE, sha256=None), True),
    (UNKNOWN, CONTENT, dataclasses.replace(REMOTE, sha256=None, commit='c2'), False),
    (BEGUN, CONTENT[:-1], REMOTE, False),
    (BEGUN, CONTENT[:-1] + b'.', REMOTE, False),
])
def test_a_file_under_the_final_name(bundle, record, content, remote, accepted):
    bundle.place.write_bytes(content)
    if record:
        write_record(bundle.record_path, record)
    step = survey(bundle, remote)
    assert (step.entry == Entry(FILE, len(CONTENT), SHA256)) is accepted and bool(step.fault) is not accepted
    assert step.missing == 0 and (accepted or 'move it away, or choose another --to' in step.fault)


def test_outdated(bundle):
    step = survey(bundle, REMOTE)
    assert not step.is_outdated()
    step.part.write_bytes(b'1')
    assert step.is_outdated()
    step = survey(bundle, REMOTE)
    assert not step.is_outdated()
    step.part.rename(step.path)
    assert step.is_outdated()
    bundle.place.write_bytes(CONTENT)
    assert not survey(bundle, REMOTE).is_outdated()


def test_verified(bundle):
    bundle.place.write_bytes(CONTENT)
    write_record(bundle.record_path, BEGUN)
    assert not bundle.is_verified()  # not finished
    write_record(bundle.record_path, dataclasses.replace(BEGUN, fetched='2026-01-02T03:04:05+00:00'))
    assert bundle.is_verified()
    bundle.place.write_bytes(CONTENT + b'.')
    with pytest.raises(UserError, match=rf'{FILE} is no longer what was fetched \(153601 bytes; the record has 153600'):
        bundle.is_verified()
    bundle.place.unlink()
    assert not bundle.is_verified()
