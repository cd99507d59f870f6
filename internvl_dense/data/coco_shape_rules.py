"""Rules about boxes, areas and masks in a COCO json.

mmdet's data sets leave objects out without a word whose box is less than 1 px wide or high or does not meet the image,
or whose area is not positive (mmdet/datasets/coco.py, parse_data_info).
"""

from __future__ import annotations

from collections.abc import Iterator

from internvl_dense.data.coco_index import Annotation, CocoIndex, ImageEntry, is_number
from internvl_dense.data.coco_masks import Box
from internvl_dense.data.rules import Finding

# Boxes and outlines are rounded in various ways; less than this is no disagreement.
TOLERANCE_PX = 1.0
# The data sets of mmdet leave out what is narrower.
MIN_SIDE_PX = 1.0
# Share of the area that a box and the box around its mask must have in common. Boxes around the hidden part of an
# object too can have less.
MIN_OVERLAP = 0.5
# So many boxes, and this share of all, make it likely that boxes are corners.
MIN_CORNERS, CORNER_SHARE = 3, 0.5


def box_malformed(index: CocoIndex) -> Iterator[Finding]:
    """A box is four finite numbers."""
    for item in index.annotations:
        if item.box is None:
            box = item.entry.get('bbox', 'missing')
            yield index.ann_file, f'{item}: bbox = {str(box)[:60]}; it is x, y, width, height in pixels.'


def boxes_are_corners(index: CocoIndex) -> Iterator[Finding]:
    """Boxes are x, y, width, height and not two corners."""
    if _look_like_corners(index):
        item, image, box = next(row for row in index.placed if _beyond(row[2], row[1]) > TOLERANCE_PX)
        yield index.ann_file, (f'boxes seem to be x0, y0, x1, y1: most of the {len(index.placed)} leave their image as '
                               f'x, y, width, height ({item}: {_text(box)} in {image.width}x{image.height}), and all '
                               'of them fit as corners. Save width and height.')


def box_negative(index: CocoIndex) -> Iterator[Finding]:
    """Width and height of a box are not negative."""
    for item, _, box in index.placed:
        if min(box[2:]) < 0:
            yield index.ann_file, f'{item}: bbox = {_text(box)} has a negative width or height.'


def box_too_small(index: CocoIndex) -> Iterator[Finding]:
    """A box is at least 1 px wide and high."""
    for item, _, box in index.placed:
        if 0 <= min(box[2:]) < MIN_SIDE_PX:
            yield index.ann_file, f'{item}: bbox = {_text(box)} is less than 1 px wide or high; it is left out.'


def box_outside(index: CocoIndex) -> Iterator[Finding]:
    """A box meets its image."""
    for item, image, box in index.placed:
        if min(box[2:]) > 0 and _overlap(box, (0, 0, image.width, image.height)) == 0:
            yield index.ann_file, (f'{item}: bbox = {_text(box)} lies outside the image of {image.width}x'
                                   f'{image.height}; the object is left out. Do the sizes fit the file?')


def box_over_edge(index: CocoIndex) -> Iterator[Finding]:
    """A box ends where its image ends."""
    if _look_like_corners(index):
        return
    for item, image, box in index.placed:
        beyond = _beyond(box, image)
        if beyond > TOLERANCE_PX and _overlap(box, (0, 0, image.width, image.height)) > 0:
            yield index.ann_file, (f'{item}: bbox = {_text(box)} goes {beyond:.4g} px beyond the image of '
                                   f'{image.width}x{image.height}.')


def area_missing(index: CocoIndex) -> Iterator[Finding]:
    """An annotation has an area."""
    for item in index.annotations:
        if _area(item) is None:
            yield index.ann_file, (f'{item}: area = {str(item.entry.get("area", "missing"))[:30]}; it is a number of '
                                   'pixels (of the mask, or width x height of the box) that training and scores need.')


def area_not_positive(index: CocoIndex) -> Iterator[Finding]:
    """An area is more than 0."""
    for item in index.annotations:
        area = _area(item)
        if area is not None and area <= 0:
            yield index.ann_file, f'{item}: area = {area:g}; the object is left out.'


def area_above_box(index: CocoIndex) -> Iterator[Finding]:
    """An area is no larger than the box."""
    for item, _, box in index.placed:
        area, most = _area(item), (box[2] + TOLERANCE_PX) * (box[3] + TOLERANCE_PX)
        if area is not None and min(box[2:]) >= 0 and area > most:
            yield index.ann_file, (f'{item}: area = {area:g} is more than its box of {box[2]:g} x {box[3]:g} px has; '
                                   'small, medium and large objects are told apart by it.')


def crowd_flag_wrong(index: CocoIndex) -> Iterator[Finding]:
    """The entry iscrowd is 0 or 1."""
    for item in index.annotations:
        flag = item.entry.get('iscrowd', 0)
        if not isinstance(flag, int) or flag not in (0, 1):
            yield index.ann_file, f'{item}: iscrowd = {str(flag)[:30]!r}; 1 marks a group of objects, 0 a single one.'


def only_crowds(index: CocoIndex) -> Iterator[Finding]:
    """Some objects are single ones."""
    if index.annotations and all(item.entry.get('iscrowd') == 1 for item in index.annotations):
        yield index.ann_file, (f'all {len(index.annotations)} objects are crowds (iscrowd = 1), which are neither '
                               'learnt nor scored. Set iscrowd = 0 for single objects.')


def crowd_flag_missing(index: CocoIndex) -> Iterator[Finding]:
    """Annotations say whether they are crowds."""
    lacking = [item for item in index.annotations if 'iscrowd' not in item.entry]
    if lacking:
        yield index.ann_file, (f'{len(lacking)} of {len(index.annotations)} annotations have no iscrowd, such as '
                               f'{lacking[0]}: they count as single objects here, and pycocotools stops at them.')


def mask_missing(index: CocoIndex) -> Iterator[Finding]:
    """Every object has a mask, where masks are trained."""
    if index.masks:
        for item, facts in index.mask_facts:
            if facts.kind == 'none':
                yield index.ann_file, f'{item}: no segmentation, and this config trains masks.'


def mask_missing_in_part(index: CocoIndex) -> Iterator[Finding]:
    """All objects have a mask, or none has."""
    lacking = [item for item, facts in index.mask_facts if facts.kind == 'none']
    if not index.masks and 0 < len(lacking) < len(index.mask_facts):
        yield index.ann_file, (f'{len(lacking)} of {len(index.mask_facts)} objects have no segmentation, such as '
                               f'{lacking[0]}: masks cannot be trained or scored with them.')


def polygon_malformed(index: CocoIndex) -> Iterator[Finding]:
    """A polygon is a list of at least three points."""
    for item, facts in index.mask_facts:
        if facts.kind == 'polygons' and facts.fault:
            yield index.ann_file, f'{item}: {facts.fault}.'


def rle_malformed(index: CocoIndex) -> Iterator[Finding]:
    """An RLE has the size of its image, and runs that fill it."""
    for item, facts in index.mask_facts:
        if facts.kind == 'rle' and facts.fault:
            yield index.ann_file, f'{item}: {facts.fault}.'


def mask_empty(index: CocoIndex) -> Iterator[Finding]:
    """A mask covers something."""
    for item, facts in index.mask_facts:
        if facts.kind != 'none' and not facts.fault and facts.extent is None:
            yield index.ann_file, f'{item}: its segmentation covers no pixel.'


def mask_outside_box(index: CocoIndex) -> Iterator[Finding]:
    """A mask meets its box."""
    for item, facts in index.mask_facts:
        if facts.extent and item.box and min(item.box[2:]) >= 0 and _common(facts.extent, item.box) == 0:
            yield index.ann_file, (f'{item}: the mask covers {_text(facts.extent)}, the box is {_text(item.box)} '
                                   '(x, y, width, height): they are not of one object.')


def mask_away_from_box(index: CocoIndex) -> Iterator[Finding]:
    """A box fits around its mask."""
    for item, facts in index.mask_facts:
        if facts.extent and item.box and min(item.box[2:]) >= 0:
            common = _common(facts.extent, item.box)
            if 0 < common < MIN_OVERLAP:
                yield index.ann_file, (f'{item}: the mask covers {_text(facts.extent)}, the box is {_text(item.box)} '
                                       f'(x, y, width, height): {100 * common:.0f} % in common.')


def _area(item: Annotation) -> float | None:
    area = item.entry.get('area')
    return float(area) if area is not None and is_number(area) else None


def _look_like_corners(index: CocoIndex) -> bool:
    beyond = sum(_beyond(box, image) > TOLERANCE_PX for _, image, box in index.placed)
    fit = all(x <= width and y <= height and width <= image.width + TOLERANCE_PX
              and height <= image.height + TOLERANCE_PX for _, image, (x, y, width, height) in index.placed)
    return beyond >= max(MIN_CORNERS, CORNER_SHARE * len(index.placed)) and fit


def _beyond(box: Box, image: ImageEntry) -> float:
    """How many pixels a box goes beyond its image at most."""
    x, y, width, height = box
    return max(-x, -y, x + width - image.width, y + height - image.height)


def _overlap(first: Box, second: Box) -> float:
    """Common area in square pixels."""
    width, height = (min(first[axis] + first[axis + 2], second[axis] + second[axis + 2])
                     - max(first[axis], second[axis]) for axis in (0, 1))
    return max(0.0, width) * max(0.0, height)


def _common(first: Box, second: Box) -> float:
    """Common share of the area of two boxes that are made larger by the tolerance on each side."""
    grown = [(x - TOLERANCE_PX, y - TOLERANCE_PX, width + 2 * TOLERANCE_PX, height + 2 * TOLERANCE_PX)
             for x, y, width, height in (first, second)]
    both = _overlap(grown[0], grown[1])
    return both / (sum(width * height for _, _, width, height in grown) - both)


def _text(box: Box) -> str:
    return f'[{", ".join(f"{value:.6g}" for value in box)}]'
