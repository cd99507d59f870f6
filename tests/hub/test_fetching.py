"""Whole fetches against a server on this machine: resumed, pinned, verified, refused."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import os
import re
import resource
import shutil

import pytest

from internvl_dense.errors import UserError
from tests.fetches import (
    CELL,
    CONTENT,
    FILE,
    FOLDER,
    FOLDER_FILES,
    LOG,
    REPO,
    SHA256,
    SHARDS,
    SOURCE,
    Told,
    get,
    names_in,
    record_of,
)

OTHER = bytes(reversed(CONTENT))


def test_a_file_and_its_record(hub, tmp_path):
    told = Told()
    bundle, = get(hub, tmp_path / 'new' / 'place', told=told)
    assert bundle.place == tmp_path / 'new' / 'place' / FILE and bundle.place.read_bytes() == CONTENT
    record = record_of(bundle.place)
    fetched = datetime.datetime.fromisoformat(record.pop('fetched'))
    assert abs((datetime.datetime.now(datetime.UTC) - fetched).total_seconds()) < 60
    assert record == {'file': FILE, 'size': len(CONTENT), 'sha256': SHA256, 'repo': REPO, 'revision': 'main',
                      'commit': hub.heads[REPO], 'licence': 'MIT', 'endpoint': hub.endpoint}
    assert names_in(tmp_path / 'new' / 'place') == {FILE, f'{FILE}.json'}
    assert hub.ranges() == [None] and told.steps[-1] == (FILE, len(CONTENT), len(CONTENT))
    for part in (f'small: {REPO} on 127.0.0.1:{hub.port}, revision main, commit {hub.heads[REPO]}', 'licence: MIT',
                 '0.2 MB to download'):
        assert part in told.text, part


def test_content_from_another_host(hub, tmp_path):
    hub.redirect_content = True
    get(hub, tmp_path)
    assert (tmp_path / FILE).read_bytes() == CONTENT


def test_a_cut_download_goes_on_at_its_commit_though_main_has_moved(hub, tmp_path):
    first = hub.heads[REPO]
    hub.cut_after = 50_000
    with pytest.raises(UserError, match=r'127\.0\.0\.1:\d+ .*connection broke.* A second run resumes'):
        get(hub, tmp_path)
    assert names_in(tmp_path) == {f'{FILE}.part', f'{FILE}.json'}
    assert record_of(tmp_path / FILE)['fetched'] is None
    hub.cut_after = None
    hub.publish(REPO, {FILE: OTHER})
    told = Told()
    get(hub, tmp_path, told=told)
    assert hub.ranges() == [None, 'bytes=50000-']
    assert (tmp_path / FILE).read_bytes() == CONTENT and not (tmp_path / f'{FILE}.part').exists()
    record = record_of(tmp_path / FILE)
    assert (record['commit'], record['revision']) == (first, 'main') and record['fetched'] is not None
    assert '50000 bytes here already' in told.text


def test_revision_overrides_the_pin_and_begins_anew(hub, tmp_path):
    hub.cut_after = 50_000
    with pytest.raises(UserError, match='resumes'):
        get(hub, tmp_path)
    hub.cut_after = None
    second = hub.publish(REPO, {FILE: OTHER})
    told = Told()
    get(hub, tmp_path, told=told, revision='main')
    assert hub.ranges() == [None, None] and (tmp_path / FILE).read_bytes() == OTHER
    assert record_of(tmp_path / FILE)['commit'] == second
    assert 'belongs to another commit' in told.text


def test_a_commit_as_revision(hub, tmp_path):
    first = hub.heads[REPO]
    hub.publish(REPO, {FILE: OTHER})
    get(hub, tmp_path, revision=first)
    assert (tmp_path / FILE).read_bytes() == CONTENT
    assert {key: record_of(tmp_path / FILE)[key] for key in ('revision', 'commit')} == {
        'revision': first, 'commit': first}
    before = len(hub.seen)
    get(hub, tmp_path, revision=first)
    assert len(hub.seen) == before


def test_another_revision_does_not_replace_a_finished_file(hub, tmp_path):
    get(hub, tmp_path)
    second = hub.publish(REPO, {FILE: OTHER})
    with pytest.raises(UserError, match=f'{FILE} of commit {second}: move it away, or choose another --to'):
        get(hub, tmp_path, revision='main')
    assert (tmp_path / FILE).read_bytes() == CONTENT


def test_a_finished_file_needs_no_server(hub, tmp_path, monkeypatch):
    get(hub, tmp_path)
    before, told = len(hub.seen), Told()
    get(hub, tmp_path, told=told)
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    get(hub, tmp_path, told=told)
    assert len(hub.seen) == before
    assert told.text.count('is here already: size and sha256 agree with its record') == 2


def test_offline_and_absent(hub, tmp_path, monkeypatch):
    monkeypatch.setenv('TRANSFORMERS_OFFLINE', 'true')
    with pytest.raises(UserError, match='OFFLINE is set, so nothing is downloaded; unset it') as caught:
        get(hub, tmp_path)
    assert str(tmp_path / FILE) in str(caught.value) and '\n' not in str(caught.value)
    assert not hub.seen and not names_in(tmp_path)


def test_a_flipped_byte_is_noticed(hub, tmp_path):
    get(hub, tmp_path)
    damaged = bytearray(CONTENT)
    damaged[1000] ^= 1
    (tmp_path / FILE).write_bytes(damaged)
    with pytest.raises(UserError, match=f'{FILE} is no longer what was fetched .*{SHA256}.*move it away and run again'):
        get(hub, tmp_path)
    (tmp_path / FILE).rename(tmp_path / 'away')
    get(hub, tmp_path)
    assert (tmp_path / FILE).read_bytes() == CONTENT and hub.ranges() == [None, None]


def test_a_file_that_was_there_before(hub, tmp_path):
    (tmp_path / FILE).write_bytes(CONTENT)
    get(hub, tmp_path)
    assert not hub.ranges() and record_of(tmp_path / FILE)['sha256'] == SHA256
    (tmp_path / f'{FILE}.json').unlink()
    (tmp_path / FILE).write_bytes(OTHER)
    with pytest.raises(UserError, match='move it away, or choose another --to'):
        get(hub, tmp_path)
    assert (tmp_path / FILE).read_bytes() == OTHER


@pytest.mark.parametrize('factor', [0.8, 1.2])
def test_a_size_unlike_that_of_the_table(hub, tmp_path, factor):
    source = dataclasses.replace(SOURCE, size_gb=len(CONTENT) / 1e9 / factor)
    with pytest.raises(UserError, match='--any-size') as caught:
        get(hub, tmp_path, source)
    assert f'({len(CONTENT)} bytes), the table {source.size_gb:g} GB' in str(caught.value)
    assert not hub.contents() and not names_in(tmp_path)
    get(hub, tmp_path, source, any_size=True)
    assert (tmp_path / FILE).read_bytes() == CONTENT


def test_all_problems_in_one_message(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(10**6, 0, 10**6))
    access = os.access
    monkeypatch.setattr(os, 'access', lambda path, mode: path != tmp_path and access(path, mode))
    source = dataclasses.replace(SOURCE, size_gb=1.0, sha256='0' * 64)
    with pytest.raises(UserError, match='4 problems') as caught:
        get(hub, tmp_path / 'new', source)
    for part in ('--any-size', f'the server announces sha256 {SHA256}, the table has 000',
                 f'{tmp_path} is not writable',
                 '1.0 MB free, 268.6 MB needed (0.2 MB to download and 268.4 MB to spare)'):
        assert part in str(caught.value), part
    assert not hub.contents() and not names_in(tmp_path)


def test_a_file_in_place_of_the_destination(hub, tmp_path):
    (tmp_path / 'taken').write_text('mine')
    for folder in (tmp_path / 'taken', tmp_path / 'taken' / 'below'):
        with pytest.raises(UserError, match='taken is a file, not a folder: choose another --to'):
            get(hub, folder)
    assert (tmp_path / 'taken').read_text() == 'mine'


def test_a_folder_in_place_of_the_unfinished_file(hub, tmp_path):
    (tmp_path / f'{FILE}.part').mkdir()
    with pytest.raises(UserError, match='check the rights there, free space and quota'):
        get(hub, tmp_path)


def test_the_checksum_of_the_table(hub, tmp_path):
    good = dataclasses.replace(SOURCE, sha256=SHA256)
    bad = dataclasses.replace(SOURCE, sha256='0' * 64)
    hub.plain.add(FILE)  # a server that states no checksum
    with pytest.raises(UserError, match=f'its sha256 is {SHA256}, the table has 0000'):
        get(hub, tmp_path, bad)
    assert names_in(tmp_path) == {f'{FILE}.wrong', f'{FILE}.json'}
    get(hub, tmp_path, good)
    assert (tmp_path / FILE).read_bytes() == CONTENT
    with pytest.raises(UserError, match=f'here is sha256 {SHA256}, the table has 0000'):
        get(hub, tmp_path, bad)


def test_dry_run(hub, tmp_path):
    told = Told()
    get(hub, tmp_path / 'new', told=told, dry_run=True)
    assert not (tmp_path / 'new').exists() and not hub.contents()
    assert f'  {FILE}: 0.2 MB, to download' in told.lines
    get(hub, tmp_path)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.iterdir())
    get(hub, tmp_path, dry_run=True)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.iterdir()) == before


def test_checkpoint_and_log_of_a_cell(hub, tmp_path):
    commit = hub.publish(REPO, {FILE: CONTENT, 'weights.log': LOG})
    get(hub, tmp_path, CELL)
    assert (tmp_path / FILE).read_bytes() == CONTENT and (tmp_path / 'weights.log').read_bytes() == LOG
    assert record_of(tmp_path / 'weights.log')['commit'] == record_of(tmp_path / FILE)['commit'] == commit
    assert record_of(tmp_path / 'weights.log')['sha256'] == hashlib.sha256(LOG).hexdigest()


def test_a_log_that_the_server_lacks(hub, tmp_path, monkeypatch):
    told = Told()
    get(hub, tmp_path, CELL, told)
    assert names_in(tmp_path) == {FILE, f'{FILE}.json'}
    assert re.search(r'has no weights\.log of .*\(status 404\).* It is left out\.', told.text)
    assert hub.seen[-2].path.startswith(f'/{REPO}/resolve/{hub.heads[REPO]}/')  # the log of that very commit
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    before, told = len(hub.seen), Told()
    get(hub, tmp_path, CELL, told)
    assert len(hub.seen) == before and f'left out: {tmp_path / "weights.log"}' in told.text
    (tmp_path / FILE).unlink()
    with pytest.raises(UserError, match='nothing is downloaded'):
        get(hub, tmp_path, CELL)


def test_a_log_that_alone_is_wanted_and_absent(hub, tmp_path):
    with pytest.raises(UserError, match=r'has no weights\.log of'):
        get(hub, tmp_path, dataclasses.replace(CELL, files=('weights.log',), optional=(), size_gb=None))
    assert not names_in(tmp_path)


def test_a_log_that_is_refused_stops_the_fetch(hub, tmp_path):
    hub.statuses['weights.log'] = 403
    with pytest.raises(UserError, match=r'refuses weights\.log'):
        get(hub, tmp_path, CELL)


def test_a_folder(hub, tmp_path):
    commit = hub.publish(REPO, FOLDER_FILES)
    bundle, = get(hub, tmp_path, FOLDER)
    wanted = {*SHARDS, 'model.safetensors.index.json', 'config.json'}
    assert names_in(tmp_path) == {'things'} | {f'things/{name}' for name in {*wanted, 'fetched.json'}}
    for name in wanted:
        assert (bundle.place / name).read_bytes() == FOLDER_FILES[name], name
    assert {seen.path.rsplit('/', 1)[1] for seen in hub.contents()} == wanted
    record = bundle.record()
    assert record is not None and record.commit == commit
    assert {(entry.file, entry.size, entry.sha256) for entry in record.files} == {
        (name, len(FOLDER_FILES[name]), hashlib.sha256(FOLDER_FILES[name]).hexdigest()) for name in wanted}
    before = len(hub.seen)
    get(hub, tmp_path, FOLDER)
    assert len(hub.seen) == before


def test_a_cut_folder_has_no_name_until_it_is_complete(hub, tmp_path):
    commit = hub.publish(REPO, FOLDER_FILES)
    hub.cut_after = 60_000
    with pytest.raises(UserError, match='A second run resumes'):
        get(hub, tmp_path, FOLDER)
    assert not (tmp_path / 'things').exists() and (tmp_path / 'things.part').is_dir()
    hub.cut_after = None
    hub.publish(REPO, dict.fromkeys(FOLDER_FILES, b'later'))
    bundle, = get(hub, tmp_path, FOLDER)
    assert names_in(tmp_path) & {'things', 'things.part'} == {'things'}
    assert hub.ranges().count('bytes=60000-') == 1
    assert all((bundle.place / name).read_bytes() == content for name, content in SHARDS.items())
    record = bundle.record()
    assert record is not None and record.commit == commit


@pytest.mark.parametrize('change', ['flip', 'remove'])
def test_a_folder_that_was_changed(hub, tmp_path, change):
    hub.publish(REPO, FOLDER_FILES)
    bundle, = get(hub, tmp_path, FOLDER)
    path = bundle.place / 'config.json'
    path.write_bytes(path.read_bytes().replace(b'8', b'9')) if change == 'flip' else path.unlink()
    with pytest.raises(UserError, match='no longer what was fetched' if change == 'flip' else 'is missing: move'):
        get(hub, tmp_path, FOLDER)


def test_a_folder_of_someone_else_is_left_alone(hub, tmp_path):
    hub.publish(REPO, FOLDER_FILES)
    (tmp_path / 'things').mkdir()
    (tmp_path / 'things' / 'config.json').write_text('{"other": 1}')
    with pytest.raises(UserError, match='4 problems') as caught:
        get(hub, tmp_path, FOLDER)
    assert 'exists without model-00001-of-00002.safetensors' in str(caught.value)
    assert names_in(tmp_path) == {'things', 'things/config.json'} and not hub.contents()


def test_the_size_of_a_folder_is_that_of_all_its_files(hub, tmp_path):
    hub.publish(REPO, FOLDER_FILES)
    with pytest.raises(UserError, match='things: the server announces'):
        get(hub, tmp_path, dataclasses.replace(FOLDER, size_gb=len(CONTENT) / 1e9))


def test_pickles_only_where_there_is_nothing_else(hub, tmp_path):
    source = dataclasses.replace(FOLDER, size_gb=None)
    hub.publish(REPO, {'pytorch_model.bin': b'pickle', 'config.json': b'{}', 'modeling.py': b''})
    bundle, = get(hub, tmp_path, source)
    assert names_in(bundle.place) == {'pytorch_model.bin', 'config.json', 'fetched.json'}
    hub.publish(REPO, {'README.md': b'', 'sub/model.safetensors': b'x'})
    with pytest.raises(UserError, match=r'no weights in \.safetensors or \.bin at its top; files: README\.md'):
        get(hub, tmp_path / 'other', source)


def test_names_that_lead_out_of_the_folder_are_not_fetched(hub, tmp_path):
    hub.publish(REPO, {**FOLDER_FILES, '../out.safetensors': CONTENT, '/out.safetensors': CONTENT})
    get(hub, tmp_path / 'in', FOLDER)
    assert names_in(tmp_path / 'in') == {'things', 'things/config.json', 'things/model.safetensors.index.json',
                                         'things/fetched.json', *(f'things/{name}' for name in SHARDS)}
    assert names_in(tmp_path) == {'in', *(f'in/{name}' for name in names_in(tmp_path / 'in'))}


def test_a_disk_that_takes_no_more(hub, tmp_path):
    """As a quota does, the limit shows only when it is reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match='File too large; check the rights there, free space and quota'):
            get(hub, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    get(hub, tmp_path)
    assert hub.ranges() == [None, 'bytes=100000-'] and (tmp_path / FILE).read_bytes() == CONTENT
