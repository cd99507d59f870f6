"""Finds images and the labels that belong to them, by name."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from internvl_dense.registry import closest

Suffixes = str | Sequence[str]


@dataclass(frozen=True)
class Pair:
    """An image and its label.

    Args:
        name: Path below the image folder without the suffix, with '/' between folders.
    """

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class Pairing:
    """What a folder of images and a folder of labels hold.

    Args:
        pairs: Sorted by name.
        images_without_label: Name -> image.
        labels_without_image: Name -> label.
        twice: Names that more than one image has, with those images.
        not_found: Names asked for that no image has.
    """

    pairs: tuple[Pair, ...]
    images_without_label: dict[str, Path]
    labels_without_image: dict[str, Path]
    twice: dict[str, tuple[Path, ...]]
    not_found: tuple[str, ...]


def find_files(folder: Path, suffixes: Suffixes) -> dict[str, Path]:
    """Files below `folder` that end in one of the suffixes: name -> path, sorted by name.

    A suffix may be more than an extension ('_labelTrainIds.png'). Of two files with one name the first in the order
    of suffixes counts. A folder that does not exist holds nothing.
    """
    return {name: paths[0] for name, paths in _files_by_name(folder, suffixes).items()}


def find_pairs(
    image_dir: Path,
    label_dir: Path,
    image_suffixes: Suffixes = '.jpg',
    label_suffix: str = '.png',
    names: Iterable[str] | None = None,
) -> Pairing:
    """Pairs images and labels whose names are equal once the suffixes are cut off.

    Args:
        image_dir: Searched with all folders below it.
        label_dir: The same for labels.
        image_suffixes: One or several endings of image files.
        label_suffix: Ending of label files.
        names: Only these images (a few-shot list); labels of other images are then no surprise.
    """
    images = _files_by_name(image_dir, image_suffixes)
    labels = find_files(label_dir, label_suffix)
    wanted = sorted(images) if names is None else sorted(set(names))
    present = [name for name in wanted if name in images]
    return Pairing(
        pairs=tuple(Pair(name, images[name][0], labels[name]) for name in present if name in labels),
        images_without_label={name: images[name][0] for name in present if name not in labels},
        labels_without_image={} if names is not None else {n: p for n, p in labels.items() if n not in images},
        twice={name: tuple(images[name]) for name in present if len(images[name]) > 1},
        not_found=tuple(name for name in wanted if name not in images),
    )


def nearest_names(name: str, options: Sequence[str], count: int = 3) -> list[str]:
    """Names among the sorted `options` that a user may have meant: those that begin with `name`, else similar ones.

    Similar ones are looked for among the 200 neighbours in alphabetical order, because comparing with each of some
    ten thousand names takes seconds.
    """
    start = bisect.bisect_left(options, name)
    longer = [option for option in options[start : start + count] if option.startswith(name)]
    return longer or closest(name, options[max(0, start - 100) : start + 100], count)


def walk_files(folder: Path) -> Iterator[Path]:
    """All files below `folder`, links followed, each folder once (a link back up does not loop)."""
    seen: set[str] = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(current, file) for file in files)


def _files_by_name(folder: Path, suffixes: Suffixes) -> dict[str, list[Path]]:
    endings = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in walk_files(folder):
        rank = next((rank for rank, ending in enumerate(endings) if path.name.endswith(ending)), None)
        if rank is not None:
            name = path.relative_to(folder).as_posix()[: -len(endings[rank])]
            found.setdefault(name, []).append((rank, path))
    return {name: [path for _, path in sorted(found[name])] for name in sorted(found)}
