"""The whole of it: find, check, make, check again, record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from internvl_dense.data.prepare.ade20k import ADE20K
from internvl_dense.data.prepare.coco import COCO
from internvl_dense.data.prepare.coco_stuff164k import COCO_STUFF164K
from internvl_dense.data.prepare.find_sources import find_sources
from internvl_dense.data.prepare.layouts import Counts, Layout, Selection
from internvl_dense.data.prepare.matching import select
from internvl_dense.data.prepare.records import is_whole, origin, write_record
from internvl_dense.data.prepare.tree import (
    State,
    nearest_folder,
    refuse_full_disk,
    refuse_other_sizes,
    refuse_strangers,
    tree_state,
)
from internvl_dense.data.prepare.workspace import Workspace
from internvl_dense.data.prepare.writing import Tally, write_files
from internvl_dense.errors import UserError, problems
from internvl_dense.registry import unknown

LAYOUTS = {layout.name: layout for layout in (ADE20K, COCO_STUFF164K, COCO)}

Say = Callable[[str], None]


class Steps(Protocol):
    """Shows how far a loop is."""

    def step(self) -> None:
        """One more is done."""


def layout_named(name: str) -> Layout:
    """A data set by its name.

    Raises:
        UserError: There is no such data set; with the closest names.
    """
    if name not in LAYOUTS:
        raise UserError(unknown('data set', name, LAYOUTS))
    return LAYOUTS[name]


def prepare(
    layout: Layout,
    sources: Sequence[Path],
    out: Path,
    *,
    say: Say,
    progress: Callable[[int, str], Steps],
    counts: Counts | None = None,
    partial: bool = False,
    threads: int | None = None,
) -> Path:
    """Makes `out / layout.folder`.

    Everything that the lists of the sources tell is checked before the first byte is written, and number and size of
    the files again afterwards. Files that are in place already are never changed. Run again, it goes on where it was
    stopped, and does nothing where all is done.

    Args:
        layout: The data set.
        sources: Archives and folders.
        out: Folder above that of the data set.
        say: Told what happens, a line at a time.
        progress: Called with the number of files and their name; its steps are called one by one.
        counts: Images that make the data set whole; as published when None.
        partial: Make a subset of what is there.
        threads: See `write_files`.

    Returns:
        The data set folder.

    Raises:
        UserError: Anything that is missing, damaged, unsafe or in the way.
    """
    root = out / layout.folder
    nearest_folder(root)
    if is_whole(layout, root, counts or layout.counts):
        say(f'{root}: complete already, nothing to do')
        return root
    selection = select(layout, find_sources(sources, say), root, counts or layout.counts, partial)
    for note in selection.notes:
        say(note)
    refuse_other_sizes(selection, root)
    refuse_strangers(selection, root)
    refuse_full_disk(selection, root)
    say(layout.licence)
    with Workspace(root, [task.target for task in selection.tasks], origin(selection)) as workspace:
        tally = write_files(selection, workspace, progress(len(selection.tasks), 'files').step, threads)
        state = tree_state(layout, root)
        _check_result(selection, state)
        record = write_record(selection, workspace, tally, state)
    _report([*workspace.notes, *tally.notes], tally, state, record, say)
    return root


def _check_result(selection: Selection, state: State) -> None:
    """The same numbers that the lists promised."""
    rows = [
        f'{part.name}: {state[part.name]["files"]:,} files in place, {len(selection.stems[part.name]):,} expected'
        for part in selection.layout.parts
        if part.split is not None and state[part.name]['files'] != len(selection.stems[part.name])]
    if rows:
        raise UserError(problems(f'{selection.layout.name}: other files than were made; does something else write '
                                 'there?', rows))


def _report(notes: Sequence[str], tally: Tally, state: State, record: Path, say: Say) -> None:
    for note in notes:
        say(f'note: {note}')
    for name, part in state.items():
        say(f'  {part["files"]:>9,}  {name}, {part["bytes"] / 1e6:,.1f} MB')
    deeds = ', '.join(f'{number:,} {deed}' for deed, number in sorted(tally.deeds.items()))
    say(f'{record.parent}: ready ({deeds}); record in {record.name}')
