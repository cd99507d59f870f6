"""Broken connections, ends in the wrong place and wrong bytes."""

from __future__ import annotations

import hashlib
import time

import pytest

from internvl_dense.errors import UserError
from tests.fetches import CONTENT, FILE, REPO, Told, get, names_in, no_waiting, record_of


def test_cuts_are_mended_within_one_run(hub, tmp_path, monkeypatch):
    no_waiting(monkeypatch)
    hub.cut_after = 60_000
    told = Told()
    get(hub, tmp_path, told=told, retries=1)  # of 153 600 bytes, each attempt gets 60 000
    assert hub.ranges() == [None, 'bytes=60000-', 'bytes=120000-']
    assert (tmp_path / FILE).read_bytes() == CONTENT
    assert '60000 of 153600 bytes are here' in told.text and told.text.count('Trying again') == 2


def test_attempts_without_a_new_byte_are_counted(hub, tmp_path, monkeypatch):
    no_waiting(monkeypatch)
    hub.cut_after = 0
    with pytest.raises(UserError, match='connection broke.*A second run resumes'):
        get(hub, tmp_path, retries=3)
    assert len(hub.ranges()) == 4


def test_waits_grow_up_to_a_limit(hub, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(time, 'sleep', waits.append)
    hub.cut_after = 0
    with pytest.raises(UserError, match='broke'):
        get(hub, tmp_path, retries=7)
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_a_server_that_always_begins_anew_does_not_keep_us_forever(hub, tmp_path, monkeypatch):
    """It ends now here, now there: bytes that were here before are no progress."""
    no_waiting(monkeypatch)
    hub.no_ranges = True
    limits = [70_000, 50_000, 70_000, 50_000, 70_000] * 4

    class Cutting(Told):
        def say(self, text: str) -> None:
            hub.cut_after = limits.pop()
            super().say(text)

    with pytest.raises(UserError, match='broke'):
        get(hub, tmp_path, told=Cutting(), retries=4)
    assert len(hub.ranges()) < 9


def test_a_server_without_ranges(hub, tmp_path, monkeypatch):
    no_waiting(monkeypatch)
    hub.cut_after, hub.no_ranges = 60_000, True

    class Mending(Told):
        def say(self, text: str) -> None:
            if 'Trying again' in text:
                hub.cut_after = None

    get(hub, tmp_path, told=Mending(), retries=1)
    assert hub.ranges() == [None, 'bytes=60000-'] and (tmp_path / FILE).read_bytes() == CONTENT


@pytest.mark.parametrize('status', [429, 500, 503])
def test_trouble_that_passes(hub, tmp_path, monkeypatch, status):
    no_waiting(monkeypatch)
    hub.failures = [status, status]
    get(hub, tmp_path, retries=2)
    assert len(hub.ranges()) == 3 and (tmp_path / FILE).read_bytes() == CONTENT
    hub.failures = [403]
    with pytest.raises(UserError, match='status 403'):
        get(hub, tmp_path / 'other', retries=2)
    assert len(hub.ranges()) == 4


def test_wrong_bytes(hub, tmp_path):
    wrong = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    hub.sent[FILE] = wrong
    with pytest.raises(UserError, match='arrived damaged or is another file') as caught:
        get(hub, tmp_path)
    for part in (hashlib.sha256(wrong).hexdigest(), hashlib.sha256(CONTENT).hexdigest(), f'{FILE}.wrong, which can be',
                 'Run again to download it anew', 'another --endpoint', f'127.0.0.1:{hub.port}', hub.heads[REPO]):
        assert part in str(caught.value), part
    assert names_in(tmp_path) == {f'{FILE}.wrong', f'{FILE}.json'} and record_of(tmp_path / FILE)['fetched'] is None
    hub.sent.clear()
    get(hub, tmp_path)
    assert hub.ranges() == [None, None] and (tmp_path / FILE).read_bytes() == CONTENT


def test_a_file_longer_than_announced(hub, tmp_path):
    hub.sent[FILE] = CONTENT * 8
    told = Told()
    with pytest.raises(UserError, match=rf'it has \d+ bytes, {len(CONTENT)} were announced'):
        get(hub, tmp_path, told=told)
    assert not (tmp_path / FILE).exists()
    assert told.steps[-1][1] < 3 * len(CONTENT)  # the rest is not waited for


def test_a_file_shorter_than_announced(hub, tmp_path, monkeypatch):
    no_waiting(monkeypatch)
    hub.announced[FILE] = len(CONTENT) + 100
    with pytest.raises(UserError, match=f'no bytes of {FILE} after the first {len(CONTENT)}, though it announces 153700'
                                        r': delete .*\.part and run again'):
        get(hub, tmp_path, retries=3)
    assert names_in(tmp_path) == {f'{FILE}.part', f'{FILE}.json'} and hub.ranges() == [None, f'bytes={len(CONTENT)}-']


def test_a_file_that_was_complete_before_its_name_was_given(hub, tmp_path):
    hub.cut_after = 0
    with pytest.raises(UserError, match='broke'):
        get(hub, tmp_path)
    (tmp_path / f'{FILE}.part').write_bytes(CONTENT)
    get(hub, tmp_path)
    assert hub.ranges() == [None] and (tmp_path / FILE).read_bytes() == CONTENT
