"""What must hold before a byte is downloaded."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Sequence

from internvl_dense.hub.bundles import Step
from internvl_dense.hub.sources import Source

# The table gives sizes in two digits, which alone can be 5 % off.
SIZE_TOLERANCE = 0.15
MARGIN_BYTES = 256 * 2**20  # room left to whoever else writes to the disk meanwhile


def size_text(size: float) -> str:
    """A number of bytes for people, in decimal units: '11.80 GB', '3.2 MB', '512 bytes'."""
    if size >= 1e9:
        return f'{size / 1e9:.2f} GB'
    return f'{size / 1e6:.1f} MB' if size >= 1e5 else f'{size:.0f} bytes'


def existing_parent(folder: pathlib.Path) -> pathlib.Path:
    """`folder`, or the nearest folder above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def free_bytes(folder: pathlib.Path) -> int:
    """Free bytes on the disk that holds, or would hold, `folder`. Quotas are not seen."""
    return shutil.disk_usage(existing_parent(folder)).free


def faults(source: Source, steps: Sequence[Step], folder: pathlib.Path, any_size: bool) -> list[str]:
    """Everything that speaks against the download, one sentence each.

    Args:
        source: What is fetched.
        steps: Its files.
        folder: The destination.
        any_size: Whether a size unlike that of the table is accepted.
    """
    found = [step.fault for step in steps if step.fault]
    missing = sum(step.missing for step in steps)
    found += [f'{step.remote.file}: the server announces no size' for step in steps if step.remote.size is None]
    # The table has the size of the whole folder, or of the first file.
    listed = [step for step in steps if source.folder is not None or step.remote.file == source.files[0]]
    if not any_size:
        found += _size_fault(source, listed)
    found += _checksum_faults(source, steps)
    if any(step.entry is None for step in steps):
        found += _place_faults(folder, missing)
    return found


def _size_fault(source: Source, steps: Sequence[Step]) -> list[str]:
    sizes = [step.remote.size for step in steps if step.remote.size is not None]
    if source.size_gb is None or not steps or len(sizes) < len(steps):
        return []
    total, listed = sum(sizes), source.size_gb * 1e9
    if abs(total - listed) <= SIZE_TOLERANCE * listed:
        return []
    name = source.folder or source.files[0]
    return [f'{name}: the server announces {size_text(total)} ({total} bytes), the table {source.size_gb:g} GB, more '
            f'than {SIZE_TOLERANCE:.0%} apart; if this is known and wanted: --any-size']


def _checksum_faults(source: Source, steps: Sequence[Step]) -> list[str]:
    found = []
    for step in steps:
        listed, seen = source.checksum_of(step.remote.file), step.entry.sha256 if step.entry else step.remote.sha256
        if listed and seen not in (None, listed):
            who = 'here is' if step.entry else 'the server announces'
            found.append(f'{step.remote.file}: {who} sha256 {seen}, the table has {listed}; take the --revision that '
                         'has this file, or another --endpoint')
    return found


def _place_faults(folder: pathlib.Path, missing: int) -> list[str]:
    parent = existing_parent(folder)
    if not parent.is_dir():
        return [f'{parent} is a file, not a folder: choose another --to']
    found = []
    if not os.access(parent, os.W_OK | os.X_OK):
        found.append(f'{parent} is not writable: choose another --to')
    free = free_bytes(folder)
    if free < missing + MARGIN_BYTES:
        found.append(f'{folder.absolute()}: {size_text(free)} free, {size_text(missing + MARGIN_BYTES)} needed '
                     f'({size_text(missing)} to download and {size_text(MARGIN_BYTES)} to spare): free some, or choose '
                     'another --to')
    return found
