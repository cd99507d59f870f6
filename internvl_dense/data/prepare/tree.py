"""What lies in a data set folder: numbers and sizes of the files that configs would read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from internvl_dense.data.prepare.layouts import Layout, Part, Selection, Task
from internvl_dense.errors import UserError, problems

BLOCK_BYTES = 4096  # files take whole blocks; the usual size of ext4 and xfs
# Label maps are compressed anew and may come out larger.
CONVERTED_GROWTH = 2

# Name of a part -> {'files': number, 'bytes': sum}.
State = dict[str, dict[str, int]]


def tree_state(layout: Layout, root: Path) -> State:
    """Counts the files of every part. No file is opened."""
    state: State = {}
    for part in layout.parts:
        sizes = [entry.stat().st_size for entry in _files(part, root)]
        state[part.name] = {'files': len(sizes), 'bytes': sum(sizes)}
    return state


def refuse_strangers(selection: Selection, root: Path) -> None:
    """Raises where a folder holds files that configs would take for the data set's own.

    Raises:
        UserError: With some of their names.
    """
    rows = []
    for part in selection.layout.parts:
        known = {part.path(stem).name for stem in selection.stems[part.name]}
        strange = sorted(entry.path for entry in _files(part, root) if entry.name not in known)
        if strange and part.split is not None:
            rows.append(f'{part.name}: {len(strange)} files that the sources do not have: {", ".join(strange[:3])}')
    if rows:
        raise UserError(problems(f'{root} is in use; move these files away or choose another --out', rows))


def refuse_other_sizes(selection: Selection, root: Path) -> None:
    """Raises where a file is in place but cannot be the one of the sources.

    Raises:
        UserError: With the first such files.
    """
    rows = [f'{root / task.target}: differs from {task.entry}' for task in selection.tasks if _is_other(task, root)]
    if rows:
        more = [f'and {len(rows) - 5} more'] if len(rows) > 5 else []
        raise UserError(problems(f'{root} holds other files, which are left alone; move them away or choose another '
                                 '--out', rows[:5] + more))


def refuse_full_disk(selection: Selection, root: Path, free_bytes: int | None = None) -> None:
    """Raises where what is still to be written does not fit.

    Args:
        selection: All files.
        root: The data set folder.
        free_bytes: Free space; asked from the file system of `root` when None.

    Raises:
        UserError: With both numbers.
    """
    place = nearest_folder(root)
    free = shutil.disk_usage(place).free if free_bytes is None else free_bytes
    device = place.stat().st_dev
    needed = sum(_bytes_on_disk(task) for task in selection.tasks
                 if not (root / task.target).exists() and not _can_be_linked(task, device))
    if needed > free:
        raise UserError(f'{place} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are needed; make room, or '
                        'choose an --out on another disk')


def nearest_folder(path: Path) -> Path:
    """The path itself or the first folder above it that exists.

    Raises:
        UserError: A file is in the way.
    """
    place = path.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise UserError(f'{place} is not a folder, so {path} cannot be made; choose another --out')
    return place


def _files(part: Part, root: Path) -> Iterator[os.DirEntry[str]]:
    """Files in the folder of a part that end as its files do; for a single file, that file."""
    pattern = root / part.target
    if not pattern.parent.is_dir():
        return
    ending = pattern.name.replace('{stem}', '')
    with os.scandir(pattern.parent) as entries:
        for entry in entries:
            is_one = entry.name == ending if part.single else entry.name.endswith(ending)
            if is_one and entry.is_file():
                yield entry


def _is_other(task: Task, root: Path) -> bool:
    target = root / task.target
    if not os.path.lexists(target):
        return False
    if not target.is_file():
        return True
    return task.part.is_done is not None and not task.part.converts and target.stat().st_size != task.entry.size


def _bytes_on_disk(task: Task) -> int:
    size = task.entry.size * (CONVERTED_GROWTH if task.part.converts else 1)
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _can_be_linked(task: Task, device: int) -> bool:
    file = task.entry.file
    return file is not None and not task.part.converts and file.stat().st_dev == device

