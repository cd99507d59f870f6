"""Makes all files of a selection, in a few threads; files that are in place already are compared and left alone."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from internvl_dense.data.prepare.entries import Entry, Load, Source
from internvl_dense.data.prepare.layouts import Selection, Task
from internvl_dense.data.prepare.workspace import Workspace
from internvl_dense.data.split_files import MAX_THREADS
from internvl_dense.errors import UserError, problems

# What was done for one file.
Deed = Literal['linked', 'copied', 'converted', 'kept']

# Then the whole source is wrong rather than some of its files.
MAX_FAULTS = 20
# Files read and not yet written, for each thread: bounds the memory.
WAITING_PER_THREAD = 2


@dataclass
class Tally:
    """What was done.

    Args:
        deeds: Deed -> number of files.
        notes: What the user should know.
    """

    deeds: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def write_files(
    selection: Selection, workspace: Workspace, step: Callable[[], None], threads: int | None = None
) -> Tally:
    """Makes every file of the selection.

    Args:
        selection: The files.
        workspace: Entered.
        step: Called in this thread after each file.
        threads: As many as there are processors, but no more than 8, when None. Files are decoded and encoded in
            the thread that calls for it, so that no more than these run.

    Raises:
        UserError: Files that are damaged, of the wrong kind, or in the way with other content: the first 20 together.
            A full disk ends the work at once.
    """
    count = threads or min(MAX_THREADS, os.cpu_count() or 1)
    crew = _Crew(selection, workspace, step, count)
    with ThreadPoolExecutor(count) as pool:
        try:
            for source, tasks in _by_source(selection.tasks).items():
                with source.reading([task.entry for task in tasks]) as loads:
                    crew.work(pool, {task.entry: task for task in tasks}, loads)
                if crew.is_stopped:
                    break
        finally:
            pool.shutdown(cancel_futures=True)
    if crew.faults:
        raise UserError(problems(f'{selection.layout.name}: files that cannot be used (finished ones are kept, and '
                                 'the next run goes on from there)', sorted(crew.faults)))
    return crew.tally


class _Crew:
    """The threads' work on one selection."""

    def __init__(self, selection: Selection, workspace: Workspace, step: Callable[[], None], threads: int) -> None:
        self.tally = Tally()
        self.faults: list[str] = []
        self._selection = selection
        self._workspace = workspace
        self._step = step
        self._limit = threads * WAITING_PER_THREAD
        self._guard = threading.Lock()

    @property
    def is_stopped(self) -> bool:
        return len(self.faults) >= MAX_FAULTS

    def work(self, pool: ThreadPoolExecutor, tasks: dict[Entry, Task], loads: Iterable[tuple[Entry, Load]]) -> None:
        """Hands out the files of one source and returns when they are done."""
        running: set[Future[None]] = set()
        try:
            for entry, load in loads:
                if self.is_stopped:
                    break
                if len(running) >= self._limit:
                    running = self._collect(running)
                running.add(pool.submit(self._make, tasks[entry], load))
            while running:
                running = self._collect(running)
        finally:
            # The source closes next, and a thread may still read from it.
            for future in running:
                future.cancel()
            wait(running)

    def _collect(self, running: set[Future[None]]) -> set[Future[None]]:
        done, rest = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
            self._step()
        return rest

    def _make(self, task: Task, load: Load) -> None:
        if self.is_stopped:
            return
        target = self._workspace.root / task.target
        exists = os.path.lexists(target)
        if exists and self._is_finished(task):
            self._count('kept')
            return
        try:
            data = load()
            content = task.part.treat(data, task, self._selection)
        except UserError as error:
            self._blame(f'{task.entry}: {error}')
            return
        if exists and not _holds(target, content.data, task):
            self._blame(f'{target}: there already, and not what {task.entry} gives; move it away, or choose another '
                        '--out')
            return
        self._count('kept' if exists else self._place(task, data, content.data), content.notes)

    def _is_finished(self, task: Task) -> bool:
        """Whether our last run made it, which was stopped later; decided without reading the source."""
        is_done = task.part.is_done
        if not self._workspace.trusts_existing or is_done is None:
            return False
        return is_done(self._workspace.root / task.target, task.entry)

    def _place(self, task: Task, data: bytes, made: bytes) -> Deed:
        is_copy = made is data
        how = self._workspace.place(task.target, made, task.entry.file if is_copy else None)
        if not is_copy:
            return 'converted'
        return 'linked' if how == 'linked' else 'copied'

    def _blame(self, fault: str) -> None:
        with self._guard:
            self.faults.append(fault)

    def _count(self, deed: Deed, notes: Iterable[str] = ()) -> None:
        with self._guard:
            self.tally.deeds[deed] += 1
            self.tally.notes += notes


def _holds(target: Path, made: bytes, task: Task) -> bool:
    try:
        return target.is_file() and task.part.is_same(target.read_bytes(), made)
    except (OSError, UserError):
        # Unreadable or no label at all: something else.
        return False


def _by_source(tasks: Iterable[Task]) -> dict[Source, list[Task]]:
    """Sources in the order in which the selection needs them first."""
    groups: dict[Source, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.entry.source, []).append(task)
    return groups
