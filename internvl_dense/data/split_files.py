"""One split of a segmentation data set, each of its files read at most once for all rules together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from internvl_dense.data.file_pairs import Pair, Pairing, find_pairs
from internvl_dense.data.image_files import ImageFacts, image_facts
from internvl_dense.data.label_files import LabelFacts, label_facts
from internvl_dense.data.label_policy import LabelPolicy

Item = TypeVar('Item')
Result = TypeVar('Result')

# Decoding releases the interpreter lock; more threads than this only wait for the disk.
MAX_THREADS = 8


@dataclass(frozen=True)
class SampleIndex:
    """Where a split lies and what its labels should mean.

    Args:
        image_dir: Folder of images, searched with all folders below it.
        label_dir: Folder of label images.
        policy: Classes and ids.
        image_suffixes: Endings of image files.
        label_suffix: Ending of label files.
        names: Only these images, by path without suffix (a few-shot list).
        max_files: Read at most this many pairs, evenly spread over the split; all when None.
    """

    image_dir: Path
    label_dir: Path
    policy: LabelPolicy
    image_suffixes: tuple[str, ...] = ('.jpg',)
    label_suffix: str = '.png'
    names: tuple[str, ...] | None = None
    max_files: int | None = None

    @cached_property
    def pairing(self) -> Pairing:
        """All images and labels by name; no file is opened."""
        return find_pairs(self.image_dir, self.label_dir, self.image_suffixes, self.label_suffix, self.names)

    @cached_property
    def checked(self) -> tuple[Pair, ...]:
        """The pairs that are read."""
        pairs = self.pairing.pairs
        if self.max_files is None or self.max_files >= len(pairs):
            return pairs
        return tuple(pairs[index * len(pairs) // self.max_files] for index in range(self.max_files))

    @cached_property
    def images(self) -> tuple[ImageFacts, ...]:
        """Facts of the checked images, in the order of `checked`."""
        return in_threads(image_facts, (pair.image for pair in self.checked))

    @cached_property
    def labels(self) -> tuple[LabelFacts, ...]:
        """Facts of the checked labels, in the order of `checked`."""
        return in_threads(label_facts, (pair.label for pair in self.checked))

    @cached_property
    def pixels(self) -> dict[int, int]:
        """Raw id -> pixels over all checked labels; `policy.describe(index.pixels)` makes a table of it."""
        total: Counter[int] = Counter()
        for label in self.labels:
            total.update(label.pixels)
        return dict(sorted(total.items()))


def in_threads(read: Callable[[Item], Result], items: Iterable[Item]) -> tuple[Result, ...]:
    """Results in the order of the items, for a function that waits for files."""
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        return tuple(pool.map(read, items))
