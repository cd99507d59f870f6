"""A fetch from beginning to end: what is here, what the server has, the checks, the download, the record."""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib
from collections.abc import Sequence

from internvl_dense.errors import UserError, problems
from internvl_dense.hub.bundles import Bundle, Step, bundles_of, survey
from internvl_dense.hub.checks import faults, free_bytes, size_text
from internvl_dense.hub.client import AGAIN, OFFLINE, Hub, NotOnServerError, is_offline
from internvl_dense.hub.locks import locked
from internvl_dense.hub.records import Entry, Record, write_record
from internvl_dense.hub.sources import Source
from internvl_dense.hub.transfer import Report, download

DEFAULT_REVISION = 'main'
DEFAULT_RETRIES = 5  # as many as huggingface_hub makes
SAFETENSORS = ('.safetensors', '.safetensors.index.json')
PICKLES = ('.bin', '.bin.index.json')  # only where a folder has no safetensors; they are opened safely


@dataclasses.dataclass(frozen=True)
class Options:
    """How to fetch.

    Args:
        folder: Destination.
        endpoint: Address of the server.
        revision: Branch, tag or commit; None for the commit of a record that is here, else 'main'.
        retries: Further attempts in a row after a broken connection.
        any_size: Accept a size unlike that of the table.
        dry_run: Stop before the download.
    """

    folder: pathlib.Path
    endpoint: str
    revision: str | None = None
    retries: int = DEFAULT_RETRIES
    any_size: bool = False
    dry_run: bool = False


def fetch(source: Source, options: Options, report: Report) -> list[Bundle]:
    """Fetches what is not here yet, and checks what is.

    Returns:
        The bundles of the source, all finished unless it was a dry run.

    Raises:
        UserError: Something speaks against the download, or the server, the network or the disk prevents it. What came
            is kept, and the next call resumes.
    """
    try:
        return _fetch(source, options, report)
    except OSError as error:
        raise UserError(f'{options.folder}: {error}; check the rights there, free space and quota. {AGAIN}') from error


def _fetch(source: Source, options: Options, report: Report) -> list[Bundle]:
    bundles = bundles_of(source, options.folder)
    waiting = [bundle for bundle in bundles if not _is_here(source, bundle, options.revision, report)]
    if not waiting:
        return bundles
    if is_offline():
        _stay_offline(source, waiting, report)
        return bundles
    hub = Hub(options.endpoint)
    record = _recorded(source, bundles)
    # A commit once begun is kept: files of one fetch, and the two halves of a resumed file, are of the same commit.
    pinned = record.commit if record else DEFAULT_REVISION
    label = options.revision or (record.revision if record else DEFAULT_REVISION)
    steps = _ask(hub, source, waiting, options.revision or pinned, report)
    _describe(hub, source, steps, label, options, report)
    found = faults(source, steps, options.folder, options.any_size)
    if found:
        raise UserError(problems(f'{source.name} cannot be fetched to {options.folder}', found))
    if not options.dry_run:
        for bundle in waiting:
            mine = [step for step in steps if step.bundle == bundle]
            if mine:
                _complete(hub, source, mine, label, options.retries, report)
    return bundles


def _stay_offline(source: Source, waiting: Sequence[Bundle], report: Report) -> None:
    absent = ', '.join(str(bundle.place) for bundle in waiting)
    if any(bundle.file not in source.optional for bundle in waiting):
        raise UserError(f'{OFFLINE} (not here, or not verified: {absent})')
    report.say(f'{OFFLINE}; left out: {absent}')


def _is_here(source: Source, bundle: Bundle, revision: str | None, report: Report) -> bool:
    """Whether a finished fetch needs no server: no revision is asked for, or the very commit that is here."""
    record = bundle.record()
    if record is None or revision not in (None, record.commit) or not bundle.is_verified():
        return False
    if source.checksum_of(bundle.place.name) not in (None, record.files[0].sha256):
        return False  # the checks name both
    report.say(f'{bundle.place} is here already: size and sha256 agree with its record, commit {record.commit}')
    return True


def _recorded(source: Source, bundles: Sequence[Bundle]) -> Record | None:
    """The record of a fetch that was finished or begun."""
    records = [bundle.record() for bundle in bundles]
    return next((record for record in records if record and record.repo == source.repo), None)


def _ask(hub: Hub, source: Source, waiting: Sequence[Bundle], revision: str, report: Report) -> list[Step]:
    """What the server has of each file, at the one commit that `revision` stands for now."""
    if source.folder is not None:
        commit, names = hub.list_files(source.repo, revision)
        chosen = _weights_of(source.repo, names)
        return [survey(waiting[0], hub.look_up(source.repo, name, commit)) for name in chosen]
    steps: list[Step] = []
    for bundle in waiting:
        assert bundle.file is not None
        try:
            remote = hub.look_up(source.repo, bundle.file, steps[0].remote.commit if steps else revision)
        except NotOnServerError as error:
            if bundle.file not in source.optional:
                raise
            report.say(f'{error} It is left out.')
            continue
        steps.append(survey(bundle, remote))
    return steps


def _weights_of(repo: str, names: Sequence[str]) -> list[str]:
    """config.json and the weights: plain files at the top of the folder, no code, no pickles beside safetensors."""
    plain = sorted(name for name in names if pathlib.PurePath(name).name == name)
    for endings in (SAFETENSORS, PICKLES):
        found = [name for name in plain if name.endswith(endings)]
        if any(name.endswith(endings[0]) for name in found):
            return [name for name in plain if name == 'config.json' or name in found]
    raise UserError(f'{repo} holds no weights in .safetensors or .bin at its top; files: {", ".join(plain) or "none"}')


def _describe(hub: Hub, source: Source, steps: Sequence[Step], label: str, options: Options, report: Report) -> None:
    commits = ', '.join(sorted({step.remote.commit for step in steps})) or 'none'
    report.say(f'{source.name}: {source.repo} on {hub.host}, revision {label}, commit {commits}')
    report.say(f'licence: {source.licence}')
    for step in steps:
        size = 'size not announced' if step.remote.size is None else size_text(step.remote.size)
        report.say(f'  {step.remote.file}: {size}, {_state(step)}')
    missing = size_text(sum(step.missing for step in steps))
    report.say(f'{missing} to download to {options.folder.absolute()}, {size_text(free_bytes(options.folder))} free '
               'there')


def _state(step: Step) -> str:
    if step.entry is not None:
        return 'here already'
    if step.part_size and not step.have:
        return 'to download anew (what is here belongs to another commit)'
    return f'{size_text(step.have)} here already' if step.have else 'to download'


def _complete(hub: Hub, source: Source, steps: Sequence[Step], revision: str, retries: int, report: Report) -> None:
    """Brings a bundle to its end: unfinished record, files, finished record, name."""
    bundle = steps[0].bundle
    with locked(bundle.place) as has_locks:
        if not has_locks:
            report.say(f'{bundle.place.parent} is on a file system without locks: start no second fetch to it now')
        changed = [str(step.path) for step in steps if step.is_outdated()]
        if changed:
            raise UserError(f'another process has just written {", ".join(changed)}: run again')
        bundle.work.mkdir(exist_ok=True)
        announced = tuple(Entry(step.remote.file, step.remote.size or 0, step.remote.sha256) for step in steps)
        record = Record(source.repo, revision, steps[0].remote.commit, source.licence, hub.endpoint, announced)
        if not all(step.entry for step in steps):
            write_record(bundle.record_path, record)
        entries = tuple(
            step.entry or download(hub, step, retries, source.checksum_of(step.remote.file), report) for step in steps)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
        write_record(bundle.record_path, dataclasses.replace(record, files=entries, fetched=now))
        if bundle.work != bundle.place and bundle.file is None:
            os.replace(bundle.work, bundle.place)
