"""Downloads one file: resumes, waits and tries again, checks, and only then gives the file its name."""

from __future__ import annotations

import os
import time
from typing import BinaryIO, Protocol

from internvl_dense.backbones.fingerprint import file_sha256
from internvl_dense.errors import UserError
from internvl_dense.hub.bundles import Step
from internvl_dense.hub.client import AGAIN, ConnectionCutError, Hub, RemoteFile
from internvl_dense.hub.records import Entry

LONGEST_WAIT_S = 30.0  # between two attempts
WRONG = '.wrong'  # ending of a file that is complete and not what was announced


class Report(Protocol):
    """Who is told what happens."""

    def say(self, text: str) -> None:
        """A line of text."""

    def progress(self, file: str, done: int, total: int) -> None:
        """`done` of `total` bytes of a file are here."""


def download(hub: Hub, step: Step, retries: int, sha256: str | None, report: Report) -> Entry:
    """Downloads what is missing of a file, checks it and puts it in its place.

    Args:
        hub: The server.
        step: The file.
        retries: Further attempts in a row after a broken connection; bytes that arrive start the count anew.
        sha256: Checksum that the file must have beside the one that the server announces; None for no such demand.
        report: Who is told.

    Raises:
        UserError: The server stops or refuses, or the content is wrong.
        OSError: The disk cannot be written.
    """
    with step.part.open('a+b') as file:
        if step.have == 0:
            file.truncate(0)
        _fill(hub, step.remote, file, retries, report)
        file.flush()
        os.fsync(file.fileno())
    return _accept(hub, step, sha256, report)


def _fill(hub: Hub, remote: RemoteFile, file: BinaryIO, retries: int, report: Report) -> None:
    """Asks again and again until the announced number of bytes is here."""
    assert remote.size is not None
    total, failures = remote.size, 0
    furthest = file.seek(0, os.SEEK_END)
    while furthest < total:
        try:
            hub.append(remote, file, lambda done: report.progress(remote.file, done, total))
            cut = ConnectionCutError(f'{hub.host} ended {remote.file} early. {AGAIN}')
        except ConnectionCutError as error:
            cut = error
        after = file.seek(0, os.SEEK_END)
        if after >= total:
            return
        # A server that begins anew each time may end at any byte: only what is new counts as progress.
        failures = 1 if after > furthest else failures + 1
        furthest = max(furthest, after)
        if failures > retries:
            raise cut
        wait = min(2.0 ** (failures - 1), LONGEST_WAIT_S)
        report.say(f'{cut}\nTrying again in {wait:g} s, {after} of {total} bytes are here.')
        time.sleep(wait)


def _accept(hub: Hub, step: Step, sha256: str | None, report: Report) -> Entry:
    remote, size = step.remote, step.part.stat().st_size
    report.say(f'{remote.file}: complete, computing its sha256')
    seen = file_sha256(step.part)
    wrong = [f'it has {size} bytes, {remote.size} were announced'] if size != remote.size else []
    wrong += [f'its sha256 is {seen}, {whose} has {expected}' for whose, expected in (
        (hub.host, remote.sha256), ('the table', sha256)) if expected not in (None, seen)]
    if wrong:
        aside = step.path.with_name(f'{step.path.name}{WRONG}')
        os.replace(step.part, aside)
        raise UserError(
            f'{remote.file} of {remote.repo}, commit {remote.commit}, arrived damaged or is another file: '
            f'{"; ".join(wrong)}. It is now {aside}, which can be deleted. Run again to download it anew; if that '
            'gives the same, the server holds another file: try another --endpoint')
    os.replace(step.part, step.path)
    return Entry(remote.file, size, seen)

