"""Records on the disk."""

from __future__ import annotations

import json

import pytest

from internvl_dense.errors import UserError
from internvl_dense.hub.records import FOLDER_RECORD, Entry, Record, read_record, write_record

ENTRY = Entry('weights.pth', 7, 'ab')
RECORD = Record('someone/things', 'main', 'c0ffee', 'MIT', 'https://mirror.example', (ENTRY,), '2026-01-02T03:04+00:00')


def test_the_record_of_a_file(tmp_path):
    path = tmp_path / 'weights.pth.json'
    write_record(path, RECORD)
    assert json.loads(path.read_text()) == {
        'file': 'weights.pth', 'size': 7, 'sha256': 'ab', 'repo': 'someone/things', 'revision': 'main',
        'commit': 'c0ffee', 'licence': 'MIT', 'endpoint': 'https://mirror.example',
        'fetched': '2026-01-02T03:04+00:00'}
    assert read_record(path) == RECORD and [child.name for child in tmp_path.iterdir()] == [path.name]


def test_the_record_of_a_folder(tmp_path):
    record = Record('a/b', 'main', 'c', 'MIT', 'e', (ENTRY, Entry('config.json', 3, None)))
    write_record(tmp_path / FOLDER_RECORD, record)
    assert [entry['file'] for entry in json.loads((tmp_path / FOLDER_RECORD).read_text())['files']] == [
        'weights.pth', 'config.json']
    assert read_record(tmp_path / FOLDER_RECORD) == record
    assert record.entry('config.json') == Entry('config.json', 3, None) and record.entry('other') is None


def test_no_record(tmp_path):
    assert read_record(tmp_path / 'weights.pth.json') is None


@pytest.mark.parametrize('text', [
    '', '[]', '{}', '{"file": "a", "size": 1, "sha256": null}', '{"files": [{"name": "a"}]}', '3', '{"files": 3}',
    json.dumps({'file': 'a', 'size': 1, 'sha256': None, 'repo': 'r', 'revision': 'm', 'commit': 'c', 'licence': 'l',
                'endpoint': 'e', 'extra': 1})])
def test_something_else(tmp_path, text):
    path = tmp_path / 'weights.pth.json'
    path.write_text(text)
    with pytest.raises(UserError, match=r'weights\.pth\.json is no record of a fetch .*: move it away and run again'):
        read_record(path)


def test_a_write_that_fails_leaves_the_old_record(tmp_path):
    path = tmp_path / 'weights.pth.json'
    write_record(path, RECORD)
    (tmp_path / 'weights.pth.json.new').mkdir()
    with pytest.raises(IsADirectoryError):
        write_record(path, Record('a/b', 'main', 'c', 'MIT', 'e', (ENTRY,)))
    assert read_record(path) == RECORD
