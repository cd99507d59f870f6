"""One COCO json and its images, each read once for all rules together. Nothing here raises on what a file holds."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from internvl_dense.data.coco_masks import Box, MaskFacts, mask_facts
from internvl_dense.data.image_files import ImageFacts, image_facts
from internvl_dense.data.split_files import in_threads

LISTS = ('images', 'annotations', 'categories')
Entry = Mapping[str, Any]


class ImageEntry(NamedTuple):
    """An image as the json has it; sizes in pixels."""

    id: int
    name: str
    width: int
    height: int


class Annotation(NamedTuple):
    """An object whose ids are numbers.

    Args:
        id: Its own.
        image: None where no image has its `image_id`.
        category_id: May be that of no category.
        box: x, y, width, height; None where it is not four numbers.
        entry: All that the json says.
    """

    id: int
    image: ImageEntry | None
    category_id: int
    box: Box | None
    entry: Entry

    def __str__(self) -> str:
        return f'annotation {self.id}' + (f' ({self.image.name})' if self.image else '')


@dataclass(frozen=True)
class CocoIndex:
    """Where a split lies and what it should hold.

    Args:
        ann_file: The json.
        image_folder: What file names in the json are relative to.
        classes: Names of the config, in the order of labels.
        masks: Training needs a segmentation of every object.
        max_files: Read at most this many images, evenly spread over the split; all when None.
    """

    ann_file: Path
    image_folder: Path
    classes: tuple[str, ...]
    masks: bool = False
    max_files: int | None = None

    @cached_property
    def loaded(self) -> tuple[Any, str]:
        """The content of the json, and why it could not be read."""
        try:
            return json.loads(self.ann_file.read_text(encoding='utf-8-sig')), ''
        except OSError as error:
            return None, error.strerror or str(error)
        except (ValueError, RecursionError) as error:  # the text is no UTF-8, no json, or nested without end
            return None, f'no json: {error}'

    def entries(self, key: str) -> list[Entry]:
        """The objects of one of the lists; empty where there is no such list."""
        content = self.loaded[0]
        rows = content.get(key) if isinstance(content, dict) else None
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    @cached_property
    def image_entries(self) -> tuple[ImageEntry, ...]:
        """Images that the json describes in full."""
        return tuple(ImageEntry(row['id'], row['file_name'], row['width'], row['height'])
                     for row in self.entries('images') if not image_gaps(row))

    @cached_property
    def categories(self) -> dict[int, str]:
        """Name by id, in the order of the json."""
        return {row['id']: row['name'] for row in self.entries('categories') if not category_gaps(row)}

    @cached_property
    def annotations(self) -> tuple[Annotation, ...]:
        """Objects whose ids are numbers."""
        images = {image.id: image for image in self.image_entries}
        return tuple(Annotation(row['id'], images.get(row['image_id']), row['category_id'], box_of(row), row)
                     for row in self.entries('annotations') if not annotation_gaps(row))

    @cached_property
    def placed(self) -> tuple[tuple[Annotation, ImageEntry, Box], ...]:
        """Objects with their image and their box, where both are known."""
        return tuple((item, item.image, item.box) for item in self.annotations if item.image and item.box)

    @cached_property
    def mask_facts(self) -> tuple[tuple[Annotation, MaskFacts], ...]:
        """What the segmentations of objects of known images cover."""
        return tuple((item, mask_facts(item.entry.get('segmentation'), item.image.width, item.image.height))
                     for item in self.annotations if item.image)

    @cached_property
    def present(self) -> tuple[ImageEntry, ...]:
        """Images whose file is there."""
        # Not Path.is_file, which raises for a name that is too long.
        return tuple(image for image in self.image_entries if os.path.isfile(self.image_folder / image.name))

    @cached_property
    def checked(self) -> tuple[ImageEntry, ...]:
        """The images that are read."""
        if self.max_files is None or self.max_files >= len(self.present):
            return self.present
        return tuple(self.present[index * len(self.present) // self.max_files] for index in range(self.max_files))

    @cached_property
    def images(self) -> tuple[ImageFacts, ...]:
        """Facts of the image files, in the order of `checked`."""
        return in_threads(image_facts, (self.image_folder / image.name for image in self.checked))


def image_gaps(row: Entry) -> list[str]:
    """Entries that an image lacks."""
    gaps = [] if is_whole(row.get('id')) else ['id']
    name = row.get('file_name')
    gaps += [] if isinstance(name, str) and name and '\0' not in name else ['file_name']
    return gaps + [key for key in ('width', 'height') if not is_whole(row.get(key)) or row[key] < 1]


def category_gaps(row: Entry) -> list[str]:
    """Entries that a category lacks."""
    return [key for key, right in (('id', is_whole(row.get('id'))), ('name', isinstance(row.get('name'), str)))
            if not right]


def annotation_gaps(row: Entry) -> list[str]:
    """Ids that an annotation lacks."""
    return [key for key in ('id', 'image_id', 'category_id') if not is_whole(row.get(key))]


def box_of(row: Entry) -> Box | None:
    """The box of an annotation, if it is four finite numbers."""
    box = row.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        return None
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])


def is_whole(value: Any) -> bool:
    """An id or a size: a whole number of 64 bits. Truth values are none."""
    return type(value) is int and abs(value) < 2**63


def is_number(value: Any) -> bool:
    """A finite number."""
    return is_whole(value) or (type(value) is float and math.isfinite(value))
