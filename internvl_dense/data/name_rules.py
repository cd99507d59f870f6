"""Rules about which files are there. They open none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from internvl_dense.data.file_pairs import nearest_names, walk_files
from internvl_dense.data.rules import Finding
from internvl_dense.data.split_files import SampleIndex
from internvl_dense.registry import closest

# Near matches are looked up for the first few findings of a rule only: messages show no more.
HINTED = 5


def folder_missing(index: SampleIndex) -> Iterator[Finding]:
    """The folders exist."""
    for kind, folder in (('image', index.image_dir), ('label', index.label_dir)):
        if not folder.is_dir():
            yield folder, f'the {kind} folder does not exist.{folder_hint(folder)}'


def no_images(index: SampleIndex) -> Iterator[Finding]:
    """At least one image matches the suffix."""
    found_any = index.pairing.pairs or index.pairing.images_without_label
    if index.image_dir.is_dir() and not found_any and index.names is None:
        pattern = ', '.join(f'*{suffix}' for suffix in index.image_suffixes)
        yield index.image_dir, f'0 images match {pattern} here or in the folders below.{_suffix_hint(index.image_dir)}'


def image_twice(index: SampleIndex) -> Iterator[Finding]:
    """One image a name."""
    for paths in index.pairing.twice.values():
        others = ', '.join(path.name for path in paths[1:])
        yield paths[0], f'{others} has the same name, so that both would use one label. Keep one.'


def name_not_found(index: SampleIndex) -> Iterator[Finding]:
    """Every name of the list has an image."""
    files = _relative_files(index.image_dir) if index.pairing.not_found else []
    for position, name in enumerate(index.pairing.not_found):
        pattern = ' or '.join(f'{name}{suffix}' for suffix in index.image_suffixes)
        yield index.image_dir, f'the list names {name!r}, but there is no {pattern}.{_near(position, name, files)}'


def image_without_label(index: SampleIndex) -> Iterator[Finding]:
    """Every image has a label."""
    missing = index.pairing.images_without_label
    if not missing or not index.label_dir.is_dir():
        return
    unused = _unused(index.label_dir, (pair.label for pair in index.pairing.pairs))
    for position, (name, path) in enumerate(missing.items()):
        yield path, f'no label {name}{index.label_suffix} in {index.label_dir}.{_near(position, name, unused)}'


def label_without_image(index: SampleIndex) -> Iterator[Finding]:
    """Every label has an image."""
    missing = index.pairing.labels_without_image
    # Without any image the rules above have spoken, and every label would be listed here.
    if not missing or not (index.pairing.pairs or index.pairing.images_without_label):
        return
    unused = _unused(index.image_dir, (pair.image for pair in index.pairing.pairs))
    for position, (name, path) in enumerate(missing.items()):
        pattern = ' or '.join(f'{name}{suffix}' for suffix in index.image_suffixes)
        yield path, f'not used: no image {pattern} in {index.image_dir}.{_near(position, name, unused)}'


def not_all_checked(index: SampleIndex) -> Iterator[Finding]:
    """All files were read."""
    total = len(index.pairing.pairs)
    if len(index.checked) < total:
        yield index.image_dir, f'checked {len(index.checked)} of {total} images and labels, evenly spread'


def _relative_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in walk_files(folder))


def _unused(folder: Path, used: Iterable[Path]) -> list[str]:
    """Files of the folder that belong to no pair: where a wrong suffix or a misspelt name shows."""
    return sorted(set(_relative_files(folder)) - {path.relative_to(folder).as_posix() for path in used})


def _near(position: int, name: str, files: list[str]) -> str:
    near = nearest_names(name, files) if position < HINTED else []
    return f' Near: {", ".join(near)}.' if near else ''


def folder_hint(folder: Path) -> str:
    """What lies beside a folder that does not exist, as a sentence."""
    parent = folder.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    names = sorted(path.name for path in parent.iterdir() if path.is_dir())
    missing = folder.relative_to(parent).parts[0] if folder != parent else ''
    shown = closest(missing, names) or names[:5]
    return f' {parent} holds the folders {", ".join(shown)}.' if shown else f' {parent} holds no folders.'


def _suffix_hint(folder: Path) -> str:
    counts = Counter(path.suffix or '(no suffix)' for path in walk_files(folder))
    return f' Found: {_counted(counts.most_common(5))}. Set the image suffix to match.' if counts else ' It is empty.'


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ', '.join(f'{count} {suffix}' for suffix, count in counts)
