"""Instances as COCO json: boxes and polygons from masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

# Outlines run through pixel centres. Traced at 4 times the size they miss an eighth of a pixel on each side, not half.
TRACE_SCALE = 4
# Corners that move the outline by less than this many pixels are left out.
TRACE_TOLERANCE_PX = 0.3
# Smaller pieces of a shape cut apart by another are no use as polygons.
MIN_PIECE_PX = 4.0


def coco_dict(
    images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], class_names: Sequence[str]
) -> dict[str, Any]:
    """The whole file. Category ids count from 1 in the order of `class_names`."""
    categories = [{'id': index, 'name': name} for index, name in enumerate(class_names, start=1)]
    return {'images': list(images), 'annotations': list(annotations), 'categories': categories}


def instance_annotation(mask: Mask, category_id: int, image_id: int, annotation_id: int) -> dict[str, Any]:
    """One object.

    Args:
        mask: (H, W), its visible pixels, at least one.
        category_id: From 1.
        image_id: `id` of its image.
        annotation_id: Unique in the file.

    Returns:
        Plain numbers: `bbox` is x, y, width, height around the mask's pixels; `area` counts them.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return {
        'id': annotation_id,
        'image_id': image_id,
        'category_id': category_id,
        'bbox': [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        'area': int(mask.sum()),
        'segmentation': mask_polygons(mask),
        'iscrowd': 0,
    }


def mask_polygons(mask: Mask) -> list[list[float]]:
    """Outer outlines of a mask's pieces as [x0, y0, x1, y1, ...], pixels from the left and top edge.

    Holes are not kept: COCO polygons have none.
    """
    large = np.kron(mask.astype(np.uint8), np.ones((TRACE_SCALE, TRACE_SCALE), dtype=np.uint8))
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in contours:
        corners = cv2.approxPolyDP(contour, TRACE_TOLERANCE_PX * TRACE_SCALE, True).reshape(-1, 2)
        # The centre of a traced cell is half a cell from its corner.
        points = (corners + 0.5) / TRACE_SCALE
        if len(points) >= 3 and cv2.contourArea(points.astype(np.float32)) >= MIN_PIECE_PX:
            polygons.append([round(float(value), 3) for value in points.ravel()])
    return polygons
