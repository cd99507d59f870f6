"""Random COCO data sets with everything that is special about COCO, and detections for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as masks

Rng = np.random.Generator


def ellipse(rng: Rng, height: int, width: int) -> np.ndarray:
    """A mask that may lie partly or wholly off the edge, or be empty."""
    rows, columns = np.ogrid[:height, :width]
    centre_y, centre_x = rng.uniform(-5, height + 5), rng.uniform(-5, width + 5)
    radius_y, radius_x = rng.uniform(0.5, height / 2, 2)
    return ((rows - centre_y) / radius_y) ** 2 + ((columns - centre_x) / radius_x) ** 2 <= 1


def rle(mask: np.ndarray) -> dict[str, Any]:
    code = masks.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {'size': code['size'], 'counts': code['counts'].decode()}


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = np.concatenate([[0], mask.ravel(order='F').astype(np.int8), [-1]])
    ends = np.flatnonzero(np.diff(flat) != 0)
    return {'size': list(mask.shape), 'counts': np.diff(np.concatenate([[0], ends])).tolist()}


def polygon(rng: Rng, box: list[float]) -> list[list[float]]:
    x, y, width, height = box
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
    points = np.stack([x + width * (0.5 + 0.5 * np.cos(angles)), y + height * (0.5 + 0.5 * np.sin(angles))], 1)
    return [points.ravel().tolist()]


def box_of(rng: Rng, height: int, width: int) -> list[float]:
    """x, y, width, height; one in four hangs over an edge."""
    x, y = rng.uniform(-15, width - 5), rng.uniform(-15, height - 5)
    return [float(x), float(y), float(rng.uniform(1, width / 1.5)), float(rng.uniform(1, height / 1.5))]


def an_object(rng: Rng, image: dict[str, Any], category: int) -> dict[str, Any]:
    height, width = image['height'], image['width']
    box = box_of(rng, height, width)
    crowd = rng.random() < 0.15
    shape = rng.integers(3)
    if crowd or shape == 0:
        mask = ellipse(rng, height, width)
        shown = uncompressed(mask) if rng.random() < 0.5 else rle(mask)
    else:
        shown = polygon(rng, box)
    found = {'image_id': image['id'], 'category_id': category, 'bbox': box, 'segmentation': shown,
             'area': float(box[2] * box[3] * rng.uniform(0.3, 1)), 'iscrowd': int(crowd)}
    return {**found, 'ignore': 1} if rng.random() < 0.05 else found


def detections_near(rng: Rng, image: dict[str, Any], objects: list[dict[str, Any]], categories: list[int]) -> list[Any]:
    """Copies of objects that are shifted, duplicated or of another class, and objects out of nothing."""
    height, width = image['height'], image['width']
    found = []
    for number in range(int(rng.integers(0, 14))):
        near = objects[number % len(objects)] if objects and rng.random() < 0.8 else None
        box = box_of(rng, height, width)
        mask = ellipse(rng, height, width)
        category = int(rng.choice(categories))
        if near is not None:
            size = np.array([near['bbox'][2], near['bbox'][3]] * 2)
            box = (np.array(near['bbox']) + size * rng.normal(0, 0.08, 4)).tolist()
            box[2:] = [max(side, 0.5) for side in box[2:]]
            code = near['segmentation']
            whole = masks.frPyObjects(code, height, width) if isinstance(
                code, list) or isinstance(code['counts'], list) else code
            mask = masks.decode(masks.merge(whole) if isinstance(whole, list) else whole)
            mask = np.roll(mask, rng.integers(-2, 3, 2), (0, 1)).astype(bool)
            category = near['category_id'] if rng.random() < 0.9 else category
        found.append({'image_id': image['id'], 'category_id': category, 'bbox': box, 'segmentation': rle(mask),
                      'score': round(float(rng.random()), 1)})  # ten values: many ties
    return found


def a_case(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Images, some without objects and some without detections; the last category has no objects."""
    rng = np.random.default_rng(seed)
    categories = rng.permutation(np.arange(1, 90))[: rng.integers(2, 4)].tolist()
    ids = rng.permutation(1000)[: rng.integers(1, 5)].tolist()
    images = [{'id': number, 'width': int(rng.integers(20, 220)), 'height': int(rng.integers(20, 220))}
              for number in ids]
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image in images:
        count = 0 if rng.random() < 0.2 else rng.integers(1, 7)
        objects = [an_object(rng, image, int(rng.choice(categories[:-1]))) for _ in range(count)]
        annotations += objects
        detections += detections_near(rng, image, objects, categories)
        if seed % 25 == 0:
            detections += [{'image_id': image['id'], 'category_id': categories[0], 'bbox': box_of(rng, 60, 60),
                            'segmentation': rle(ellipse(rng, image['height'], image['width'])), 'score': 0.5}
                           for _ in range(120)]  # more than any limit lets through
    for number, annotation in enumerate(annotations, 1):
        annotation['id'] = number
    names = [{'id': category, 'name': f'class {category}'} for category in categories]
    return {'images': images, 'annotations': annotations, 'categories': names}, detections
