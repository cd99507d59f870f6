"""What a benchmark data set is made of: its parts, where they come from and where configs look for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from internvl_dense.data.prepare.entries import Entry
from internvl_dense.data.prepare.member_rules import MIB

Split = Literal['train', 'val']
SPLITS: tuple[Split, ...] = ('train', 'val')


@dataclass(frozen=True)
class Counts:
    """Published number of images of each split."""

    train: int
    val: int

    def of(self, split: Split) -> int:
        """Images of one split."""
        return self.train if split == 'train' else self.val


@dataclass(frozen=True)
class Content:
    """What becomes of a source file.

    Args:
        data: Bytes to write; the very object that was read where nothing changes.
        notes: What the user should know, one sentence each.
    """

    data: bytes
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Files of one sort: the images of a split, their labels, or a single file.

    Args:
        name: As in 'training images'.
        split: Whose files they are; None for files that may be missing.
        pattern: Matches the end of a source path; its group 'stem' is the name without ending.
        example: The same as a person would write it.
        target: Path below the data set folder, with {stem} unless it is a single file.
        treat: Checks and, where needed, converts; raises `UserError` without naming the file.
        partner: The part whose stems must be the same.
        single: One file, not one an image.
        max_bytes: Of one file.
        converts: What is written differs from what is read.
        is_done: Whether a file that an unfinished run left is complete; None: compare its content.
        is_same: Whether a file that was there before holds what would be written.
    """

    name: str
    split: Split | None
    pattern: re.Pattern[str]
    example: str
    target: str
    treat: Treat
    partner: str = ''
    single: bool = False
    max_bytes: int = 64 * MIB
    converts: bool = False
    is_done: Callable[[Path, Entry], bool] | None = None
    is_same: Callable[[bytes, bytes], bool] = bytes.__eq__

    def path(self, stem: str) -> Path:
        """Below the data set folder."""
        return Path(self.target.format(stem=stem))

    def published(self, counts: Counts) -> int | None:
        """Number of files; None where it does not matter."""
        if self.split is None:
            return None
        return 1 if self.single else counts.of(self.split)


@dataclass(frozen=True)
class WrongRelease:
    """Another data set that is easily taken for this one.

    Args:
        pattern: Found in a path of it.
        mistaken_for: Only of interest where parts with this in their name are missing altogether.
        what: What it is.
        way_out: What to get instead.
    """

    pattern: re.Pattern[str]
    mistaken_for: str
    what: str
    way_out: str


@dataclass(frozen=True)
class Layout:
    """A data set.

    Args:
        name: As on the command line.
        folder: Below the output folder.
        counts: Published.
        parts: Those whose content can be wrong first, so that mistakes show before much is written.
        wrong: Other releases.
        archives: What to download, and from which page.
        licence: Terms, as far as they are known for sure.
        version: Of the content; raised when the same sources give other bytes.
    """

    name: str
    folder: str
    counts: Counts
    parts: tuple[Part, ...]
    wrong: tuple[WrongRelease, ...]
    archives: str
    licence: str
    version: int = 1


@dataclass(frozen=True, eq=False)
class Task:
    """One file to make."""

    part: Part
    stem: str
    entry: Entry

    @property
    def target(self) -> Path:
        """Below the data set folder."""
        return self.part.path(self.stem)


@dataclass(frozen=True, eq=False)
class Selection:
    """All files to make.

    Args:
        layout: Of which data set.
        counts: Number of images that make it whole.
        partial: A subset will do.
        stems: Name of a part -> stems of its files.
        tasks: In the order of the parts.
        notes: What the user should know.
    """

    layout: Layout
    counts: Counts
    partial: bool
    stems: Mapping[str, frozenset[str]]
    tasks: tuple[Task, ...]
    notes: tuple[str, ...] = ()


# How a file is checked and converted.
Treat = Callable[[bytes, Task, Selection], Content]
