"""Rules about the image files that a COCO json names."""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from internvl_dense.data.coco_index import CocoIndex
from internvl_dense.data.file_pairs import nearest_names, walk_files
from internvl_dense.data.image_rules import size_text
from internvl_dense.data.name_rules import HINTED, folder_hint
from internvl_dense.data.rules import Finding

SHOWN = 5
Pair = tuple[CocoIndex, CocoIndex]


def folder_missing(index: CocoIndex) -> Iterator[Finding]:
    """The image folder exists."""
    if not index.image_folder.is_dir():
        yield index.image_folder, f'the image folder does not exist.{folder_hint(index.image_folder)}'


def image_missing(index: CocoIndex) -> Iterator[Finding]:
    """Every image of the json has a file."""
    here = set(index.present)
    missing = [image for image in index.image_entries if image not in here]
    if not missing or not index.image_folder.is_dir():
        return
    names = sorted(path.relative_to(index.image_folder).as_posix() for path in walk_files(index.image_folder))
    by_end = {Path(name).name: name for name in names}
    for position, image in enumerate(missing):
        same = by_end.get(Path(image.name).name)
        near = ([same] if same else nearest_names(image.name, names)) if position < HINTED else []
        hint = f' Near: {", ".join(near)}.' if near else ''
        yield index.image_folder / image.name, f'image {image.id} of {index.ann_file.name} has no file.{hint}'


def file_name_twice(index: CocoIndex) -> Iterator[Finding]:
    """A file is one image."""
    for name, count in Counter(image.name for image in index.image_entries).items():
        if count > 1:
            ids = [image.id for image in index.image_entries if image.name == name]
            yield index.ann_file, f'{count} images are the file {name} (ids {", ".join(map(str, ids[:SHOWN]))}).'


def size_differs(index: CocoIndex) -> Iterator[Finding]:
    """An image has the size that the json says."""
    for image, facts in zip(index.checked, index.images, strict=True):
        stated = image.width, image.height
        if facts.unreadable or facts.width_height == stated:
            continue
        sizes = f'the json says {size_text(stated)}, the image is {size_text(facts.width_height)}'
        if facts.stored_size == stated:
            yield facts.path, (f'{sizes} after its EXIF orientation {facts.orientation} turned it, as training reads '
                               'it. Store the image upright without the EXIF tag, or turn its boxes and masks too.')
        else:
            yield facts.path, f'{sizes} (width x height): boxes and masks would lie in the wrong place.'


def image_without_objects(index: CocoIndex) -> Iterator[Finding]:
    """Every image has an object."""
    full = {item.image.id for item in index.annotations if item.image}
    empty = [image for image in index.image_entries if image.id not in full]
    if empty and full:
        yield index.ann_file, (f'{len(empty)} of {len(index.image_entries)} images have no object, such as '
                               f'{", ".join(image.name for image in empty[:SHOWN])}: filter_cfg with filter_empty_gt '
                               'leaves them out of training; without it they count as background.')


def not_all_checked(index: CocoIndex) -> Iterator[Finding]:
    """All image files were read."""
    if len(index.checked) < len(index.present):
        yield index.image_folder, f'read {len(index.checked)} of {len(index.present)} images, evenly spread'


def image_in_both(pair: Pair) -> Iterator[Finding]:
    """No image is in two splits."""
    first, second = pair
    names = {image.name for image in second.present}
    both = [image.name for image in first.present if image.name in names
            and _same(first.image_folder / image.name, second.image_folder / image.name)]
    if both:
        yield second.ann_file, (f'{len(both)} of {len(second.image_entries)} images are also in {first.ann_file}, such '
                                f'as {", ".join(both[:SHOWN])}: scores on images of the training say little.')


def _same(first: Path, second: Path) -> bool:
    """Whether two files hold the same; contents are compared where sizes agree."""
    return first == second or (first.stat().st_size == second.stat().st_size
                               and filecmp.cmp(first, second, shallow=False))
