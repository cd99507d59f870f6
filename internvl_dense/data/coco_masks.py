"""What the segmentation of a COCO annotation covers, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from internvl_dense.data.rle import extent, run_lengths
from internvl_dense.errors import UserError

Box = tuple[float, float, float, float]  # x, y, width, height in pixels

# Three points. With four numbers pycocotools takes a polygon for a box.
MIN_NUMBERS = 6


@dataclass(frozen=True)
class MaskFacts:
    """What one look at a segmentation tells.

    Args:
        kind: 'polygons', 'rle', or 'none' where there is nothing or an empty list.
        fault: Why it cannot be used.
        extent: Around its points or pixels; None where it has none, or a fault.
    """

    kind: str
    fault: str = ''
    extent: Box | None = None


def mask_facts(segmentation: Any, width: int, height: int) -> MaskFacts:
    """Looks at the segmentation of an object in an image of that size; raises nothing."""
    if segmentation is None or segmentation == []:
        return MaskFacts('none')
    if isinstance(segmentation, list):
        return _polygons(segmentation)
    if isinstance(segmentation, Mapping):
        return _rle(segmentation, width, height)
    return MaskFacts('polygons', f'segmentation = {str(segmentation)[:40]!r}: a list of polygons, or an RLE object')


def _polygons(polygons: list[Any]) -> MaskFacts:
    lows, highs = [], []
    for number, polygon in enumerate(polygons, 1):
        fault, points = _points(polygon)
        if points is None:
            return MaskFacts('polygons', f'polygon {number} of {len(polygons)} {fault}')
        lows.append(points.min(axis=0))
        highs.append(points.max(axis=0))
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    if (high <= low).any():
        return MaskFacts('polygons')
    return MaskFacts('polygons', '', (float(low[0]), float(low[1]), *(float(side) for side in high - low)))  # type: ignore[arg-type]


def _points(polygon: Any) -> tuple[str, Any]:
    """A fault, or no fault and (N, 2) points."""
    if not isinstance(polygon, list):
        return f'is {str(polygon)[:20]!r}, not a list: a single polygon needs [[x0, y0, x1, y1, ...]]', None
    if len(polygon) < MIN_NUMBERS or len(polygon) % 2:
        return f'has {len(polygon)} numbers; x and y of at least three points are {MIN_NUMBERS} or more, in pairs', None
    try:
        numbers = np.asarray(polygon)
    except ValueError:
        return 'holds something else than numbers', None
    if numbers.dtype.kind not in 'iuf' or numbers.ndim != 1:
        return 'holds something else than numbers', None
    return ('', numbers.reshape(-1, 2)) if np.isfinite(numbers).all() else ('holds NaN or infinity', None)


def _rle(code: Mapping[str, Any], width: int, height: int) -> MaskFacts:
    if code.get('size') != [height, width]:
        turned = '; it is width before height there' if code.get('size') == [width, height] else ''
        return MaskFacts('rle', f'its RLE has size {code.get("size")}, the image is [{height}, {width}] '
                                f'(height, width){turned}')
    try:
        covered = int(run_lengths(code.get('counts')).sum())
    except UserError as error:
        return MaskFacts('rle', f'its RLE is damaged: {error}')
    if covered != width * height:
        return MaskFacts('rle', f'the runs of its RLE cover {covered} pixels, the image has {width * height}')
    return MaskFacts('rle', '', extent(code))
