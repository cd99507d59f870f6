"""prepared.json: what a finished data set folder holds and what it was made from. Written last."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from internvl_dense import __version__
from internvl_dense.data.prepare.entries import Source
from internvl_dense.data.prepare.layouts import Counts, Layout, Selection
from internvl_dense.data.prepare.tree import State, tree_state
from internvl_dense.data.prepare.workspace import Workspace
from internvl_dense.data.prepare.writing import Tally
from internvl_dense.errors import UserError

RECORD = 'prepared.json'
# Decide whether the folder is what this command would make; the rest is for people.
IDENTITY = ('data_set', 'version', 'published', 'partial', 'files')

Record = dict[str, Any]


def read_record(root: Path) -> Record:
    """The record of a data set folder; empty where there is none.

    Raises:
        UserError: There is a file of that name that no run of this command wrote.
    """
    path = root / RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_bytes())
    except ValueError:
        record = None
    if not isinstance(record, dict) or 'data_set' not in record:
        raise UserError(f'{path}: not a record of this command, and it would have to go there; move it away')
    return record


def is_whole(layout: Layout, root: Path, counts: Counts) -> bool:
    """Whether a record says that all is done, and number and size of all files are still as it says."""
    record = read_record(root)
    return {name: record.get(name) for name in IDENTITY} == _identity(layout, counts, False, tree_state(layout, root))


def write_record(selection: Selection, workspace: Workspace, tally: Tally, state: State) -> Path:
    """Writes the record when everything else is on disk; leaves one that says the same alone.

    Args:
        selection: All files.
        workspace: Entered, with all files in place.
        tally: How they got there.
        state: Their number and size.

    Returns:
        Where the record is.
    """
    root, layout = workspace.root, selection.layout
    identity = _identity(layout, selection.counts, selection.partial, state)
    before = read_record(root)
    if {name: before.get(name) for name in IDENTITY} == identity:
        return root / RECORD
    record = {
        **identity,
        'sources': _sources(selection),
        'made': dict(sorted(tally.deeds.items())),
        'notes': [*selection.notes, *tally.notes],
        'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
        'converter': f'internvl_dense {__version__}',
        'licence': layout.licence,
    }
    # One call for all: a quarter of a million single ones would take longer than the work itself.
    os.sync()
    workspace.place(Path(RECORD), (json.dumps(record, indent=1) + '\n').encode())
    return root / RECORD


def origin(selection: Selection) -> Record:
    """What decides the content of converted files, whose size tells nothing about their source."""
    entries = [task.entry for task in selection.tasks if task.part.converts]
    return {
        'data_set': selection.layout.name,
        'version': selection.layout.version,
        'converted_from': [
            {'path': str(source.path.resolve()), 'files': sum(entry.source is source for entry in entries),
             'bytes': sum(entry.size for entry in entries if entry.source is source)}
            for source in _unique(entry.source for entry in entries)],
    }


def _identity(layout: Layout, counts: Counts, partial: bool, state: State) -> Record:
    return {'data_set': layout.name, 'version': layout.version, 'published': {'train': counts.train, 'val': counts.val},
            'partial': partial, 'files': state}


def _sources(selection: Selection) -> list[Record]:
    return [
        {'path': str(source.path.resolve()), 'kind': source.kind,
         'bytes': source.path.stat().st_size if source.path.is_file()
         else sum(task.entry.size for task in selection.tasks if task.entry.source is source)}
        for source in _unique(task.entry.source for task in selection.tasks)]


def _unique(sources: Iterable[Source]) -> list[Source]:
    return list(dict.fromkeys(sources))
