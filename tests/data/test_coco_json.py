from __future__ import annotations

import cv2
import numpy as np
import pytest

from internvl_dense.data.coco_json import coco_dict, instance_annotation, mask_polygons


def filled(polygons: list[list[float]], shape: tuple[int, int], scale: int = 8) -> np.ndarray:
    """The pixels whose centre lies in a polygon, drawn large and sampled."""
    large = np.zeros((shape[0] * scale, shape[1] * scale), dtype=np.uint8)
    for polygon in polygons:
        points = np.array(polygon).reshape(-1, 2) * scale - 0.5
        cv2.fillPoly(large, [np.rint(points).astype(np.int32)], 1)
    return large[scale // 2 :: scale, scale // 2 :: scale].astype(bool)


def disc(shape: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


@pytest.mark.parametrize('radius', [3, 8, 20, 35])
def test_polygons_cover_their_mask(radius: int) -> None:
    mask = disc((80, 90), 40, 36, radius)
    drawn = filled(mask_polygons(mask), mask.shape)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.97


def test_a_mask_in_pieces_has_a_polygon_for_each() -> None:
    mask = disc((60, 90), 15, 30, 10) | disc((60, 90), 65, 30, 12)
    mask[0, 0] = True
    polygons = mask_polygons(mask)
    assert len(polygons) == 2
    assert all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)


def test_box_and_area_count_pixels() -> None:
    mask = np.zeros((10, 12), dtype=bool)
    mask[2:5, 3:9] = True
    annotation = instance_annotation(mask, category_id=2, image_id=7, annotation_id=11)
    assert annotation['bbox'] == [3, 2, 6, 3]
    assert annotation['area'] == 18
    assert (annotation['id'], annotation['image_id'], annotation['category_id']) == (11, 7, 2)
    xs, ys = annotation['segmentation'][0][::2], annotation['segmentation'][0][1::2]
    np.testing.assert_allclose([min(xs), max(xs), min(ys), max(ys)], [3, 9, 2, 5], atol=0.126)


def test_categories_count_from_one() -> None:
    assert coco_dict([], [], ['x', 'y'])['categories'] == [{'id': 1, 'name': 'x'}, {'id': 2, 'name': 'y'}]
