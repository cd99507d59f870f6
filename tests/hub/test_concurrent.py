"""Two fetches to one place, and one that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from internvl_dense.errors import UserError
from tests.fetches import CONTENT, FILE, FOLDER, FOLDER_FILES, REPO, SHARDS, get, names_in

CHILD = 'import sys, pathlib; from tests import fetches, hub_server as server; fetches.get(' \
    'server.HubServer(port=int(sys.argv[1])), pathlib.Path(sys.argv[2]), fetches.FOLDER)'


def wait_for(condition, process: subprocess.Popen[bytes] | None = None) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end and (process is None or process.poll() is None)
        time.sleep(0.02)


def test_a_second_fetch_is_refused_and_a_killed_one_resumed(hub, tmp_path, repo_root):
    hub.publish(REPO, FOLDER_FILES)
    hub.hold_after = 60_000
    with subprocess.Popen([sys.executable, '-c', CHILD, str(hub.port), str(tmp_path)], cwd=repo_root) as process:
        try:
            first = tmp_path / 'things.part' / f'{min(SHARDS)}.part'
            wait_for(lambda: first.exists() and first.stat().st_size > 0, process)
            with pytest.raises(UserError, match='another process is fetching .*things: wait until it is done'):
                get(hub, tmp_path, FOLDER)
        finally:
            process.send_signal(signal.SIGKILL)
    hub.go_on.set()
    assert not (tmp_path / 'things').exists()
    have = first.stat().st_size
    assert 0 < have <= 60_000
    bundle, = get(hub, tmp_path, FOLDER)
    assert f'bytes={have}-' in hub.ranges() and names_in(tmp_path) & {'things.part', 'things.lock'} == set()
    assert all((bundle.place / name).read_bytes() == content for name, content in SHARDS.items())


def test_a_fetch_that_looked_before_another_one_began(hub, tmp_path):
    """The slow one must not empty or replace what the quick one has finished meanwhile."""
    caught: list[UserError] = []

    class Slow:
        """Stops between the comparison and the download, until the other fetch is done."""

        def say(self, text: str) -> None:
            if 'to download to' in text:
                looked.set()
                done.wait(10)

        def progress(self, file: str, done: int, total: int) -> None:
            raise AssertionError('nothing is left to download')

    def slow() -> None:
        try:
            get(hub, tmp_path, told=Slow())  # type: ignore[arg-type]
        except UserError as error:
            caught.append(error)

    looked, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=slow)
    thread.start()
    assert looked.wait(10)
    get(hub, tmp_path)
    done.set()
    thread.join(10)
    assert not thread.is_alive() and f'has just written {tmp_path / FILE}: run again' in str(caught[0])
    assert names_in(tmp_path) == {FILE, f'{FILE}.json'} and (tmp_path / FILE).read_bytes() == CONTENT
    get(hub, tmp_path)
    assert hub.ranges() == [None]
