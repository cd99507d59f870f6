"""What speaks against a download."""

from __future__ import annotations

import dataclasses

import pytest

from internvl_dense.hub.bundles import Bundle, Step
from internvl_dense.hub.checks import existing_parent, faults, free_bytes, size_text
from internvl_dense.hub.client import RemoteFile
from internvl_dense.hub.records import Entry
from internvl_dense.hub.sources import Source

SOURCE = Source('small', 'a/b', 'MIT', files=('w.pth', 'w.log'), optional=('w.log',), size_gb=1e-3)


def step(folder, size, file='w.pth', sha256=None, **fields):
    remote = RemoteFile('a/b', file, 'c', size, sha256, 'u')
    return Step(Bundle(folder / file, file), remote, **{'have': 0, **fields})


@pytest.mark.parametrize('size, text', [
    (11.8e9, '11.80 GB'), (1e9, '1.00 GB'), (3.21e6, '3.2 MB'), (1e5, '0.1 MB'), (512, '512 bytes')])
def test_size_text(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize('size, accepted', [(850_000, True), (1_150_000, True), (849_999, False), (1_150_001, False)])
def test_fifteen_percent(tmp_path, size, accepted):
    assert (faults(SOURCE, [step(tmp_path, size)], tmp_path, any_size=False) == []) is accepted
    assert faults(SOURCE, [step(tmp_path, size)], tmp_path, any_size=True) == []


def test_the_log_has_no_size_in_the_table(tmp_path):
    steps = [step(tmp_path, 1_000_000), step(tmp_path, 77, 'w.log')]
    assert faults(SOURCE, steps, tmp_path, any_size=False) == []
    assert faults(SOURCE, steps[1:], tmp_path, any_size=False) == []
    assert faults(dataclasses.replace(SOURCE, size_gb=None), [step(tmp_path, 5)], tmp_path, any_size=False) == []


def test_a_folder_counts_as_a_whole(tmp_path):
    source = Source('small', 'a/b', 'MIT', folder='b', size_gb=1e-3)
    steps = [step(tmp_path, 500_000, name) for name in ('1.safetensors', '2.safetensors')]
    assert faults(source, steps, tmp_path, any_size=False) == []
    found, = faults(source, steps[:1], tmp_path, any_size=False)
    assert found.startswith('b: the server announces 0.5 MB (500000 bytes), the table 0.001 GB')


def test_checksums(tmp_path):
    source = dataclasses.replace(SOURCE, sha256='ab')
    assert faults(source, [step(tmp_path, 10**6, sha256='ab'), step(tmp_path, 9, 'w.log', 'cd')], tmp_path, False) == []
    found, = faults(source, [step(tmp_path, 10**6, sha256='cd')], tmp_path, True)
    assert 'the server announces sha256 cd, the table has ab' in found and '--revision' in found
    here = step(tmp_path, 10**6, have=10**6, entry=Entry('w.pth', 10**6, 'cd'))
    assert 'here is sha256 cd' in faults(source, [here], tmp_path, True)[0]


def test_space_for_what_is_missing_alone(tmp_path):
    lots = free_bytes(tmp_path) + 10**9
    found, = faults(SOURCE, [step(tmp_path, lots)], tmp_path, True)
    assert 'free some, or choose another --to' in found and 'needed' in found
    assert faults(SOURCE, [step(tmp_path, lots, have=lots)], tmp_path, True) == []


def test_a_finished_file_needs_no_writable_place(tmp_path):
    (tmp_path / 'taken').touch()
    here = step(tmp_path / 'taken', 10**6, have=10**6, entry=Entry('w.pth', 10**6, 'cd'))
    assert faults(SOURCE, [here], tmp_path / 'taken', True) == []
    assert 'is a file' in faults(SOURCE, [step(tmp_path / 'taken', 10**6)], tmp_path / 'taken', True)[0]


def test_existing_parent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert existing_parent(tmp_path / 'a' / 'b') == tmp_path
    assert existing_parent(tmp_path.relative_to(tmp_path) / 'a') == tmp_path
