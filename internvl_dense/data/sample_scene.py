"""One picture of the sample data: patterned shapes on a background, with labels and instances."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from internvl_dense.data.sample_backgrounds import draw_background
from internvl_dense.data.sample_colours import shape_colours
from internvl_dense.data.sample_outlines import Points, draw_outline
from internvl_dense.data.sample_patterns import PATTERNS, Pattern

Canvas = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

IGNORE_INDEX = 255

# Shapes of 34..73 px across in the default 140 px picture: several patches of 14 px fit inside.
RADIUS_RANGE = (0.12, 0.26)
SHAPES_RANGE = (3, 6)
PLACING_TRIES = 12

# No shape may lose more than this share of its area to the shapes above it.
MAX_HIDDEN = 0.4

# Outlines are filled at 4 times the size and averaged: 16 steps of coverage along each edge.
SUPERSAMPLING = 4


@dataclass(frozen=True)
class Instance:
    """One shape.

    Args:
        class_id: 1..5, the row of `PATTERNS` plus one (0 is the background).
        mask: (H, W), its visible part.
    """

    class_id: int
    mask: Mask


@dataclass(frozen=True)
class Scene:
    """A picture with its truth.

    Args:
        image: (H, W, 3) uint8 RGB.
        label: (H, W) uint8; 0 background, 1..5 pattern, 255 on the two-pixel line between areas.
        instances: The shapes, lowest first.
    """

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    instances: tuple[Instance, ...]


def draw_scene(rng: np.random.Generator, size_px: int) -> Scene:
    """Draws one picture of `size_px` x `size_px`; equal random states give equal pictures."""
    canvas = draw_background(rng, size_px)
    owner = np.zeros((size_px, size_px), dtype=np.uint8)
    classes: list[int] = []
    areas: list[int] = []
    light = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(*SHAPES_RANGE, endpoint=True)):
        alpha = _place(rng, owner, areas)
        if alpha is None:
            continue
        row = int(rng.integers(len(PATTERNS)))
        canvas = _paint(rng, canvas, alpha, PATTERNS[row], light)
        inside = alpha > 0.5
        classes.append(row + 1)
        areas.append(int(inside.sum()))
        owner[inside] = len(classes)
    instances = tuple(Instance(class_id, owner == number) for number, class_id in enumerate(classes, start=1))
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(image, _label(owner, classes), instances)


def _place(rng: np.random.Generator, owner: npt.NDArray[np.uint8], areas: list[int]) -> Canvas | None:
    """Coverage (H, W) of a new shape at a place that hides no other too much; None when no place was found."""
    size_px = len(owner)
    for _ in range(PLACING_TRIES):
        radius_px = size_px * rng.uniform(*RADIUS_RANGE)
        # Centres keep half a radius from the border, so that the larger part of a shape is in the picture.
        centre = rng.uniform(radius_px / 2, size_px - radius_px / 2, 2)
        alpha = _fill(draw_outline(rng, radius_px) + centre, size_px)
        left = np.bincount(owner[alpha <= 0.5], minlength=len(areas) + 1)[1:]
        if all(seen >= (1 - MAX_HIDDEN) * area for seen, area in zip(left, areas, strict=True)):
            return alpha
    return None


def _fill(points: Points, size_px: int) -> Canvas:
    """Share of every pixel inside the outline: (size, size) in 0..1."""
    large = np.zeros((size_px * SUPERSAMPLING, size_px * SUPERSAMPLING), dtype=np.uint8)
    cv2.fillPoly(large, [np.rint(points * SUPERSAMPLING).astype(np.int32)], 255)
    small = cv2.resize(large, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def _paint(rng: np.random.Generator, canvas: Canvas, alpha: Canvas, pattern: Pattern, light: float) -> Canvas:
    """Lays shadow, pattern and shading of one shape over the canvas."""
    size_px = len(alpha)
    y, x = np.mgrid[:size_px, :size_px].astype(np.float32)
    first, second = shape_colours(rng)
    cover = pattern.draw(rng, x, y)[..., None]
    surface = first * (1 - cover) + second * cover
    surface = surface * _shading(alpha, light, rng.uniform(0.5, 1.0))[..., None]
    shaded = canvas * (1 - _shadow(alpha, light, rng.uniform(0.25, 0.5)))[..., None]
    return shaded * (1 - alpha[..., None]) + surface * alpha[..., None]


def _shadow(alpha: Canvas, light: float, strength: float) -> Canvas:
    """Soft shadow on the side away from the light, 0..strength."""
    size_px = len(alpha)
    offset = size_px / 35
    shift = np.array([[1, 0, offset * np.cos(light)], [0, 1, offset * np.sin(light)]], dtype=np.float32)
    moved = cv2.warpAffine(alpha, shift, (size_px, size_px))
    return strength * cv2.GaussianBlur(moved, (0, 0), size_px / 40)


def _shading(alpha: Canvas, light: float, strength: float) -> Canvas:
    """Brightness factor of a cushion lit from one side, about 0.75..1.2, with a slightly darker rim."""
    inside = cv2.distanceTransform((alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    depth = np.minimum(inside / max(float(inside.max()), 1.0), 1.0)
    height = cv2.GaussianBlur(np.sqrt(1 - (1 - depth) ** 2), (0, 0), 2.0)
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3)
    facing = np.clip(slope_x * np.cos(light) + slope_y * np.sin(light), -1, 1)
    rim = 0.18 * np.exp(-inside / 1.2)
    return (1 + strength * (0.3 * facing + 0.08 * (height - 0.5)) - rim).astype(np.float32)


def _label(owner: npt.NDArray[np.uint8], classes: list[int]) -> npt.NDArray[np.uint8]:
    """Class ids, with the pixels on both sides of every border ignored."""
    square = np.ones((3, 3), dtype=np.uint8)
    label = np.array([0, *classes], dtype=np.uint8)[owner]
    label[cv2.dilate(owner, square) != cv2.erode(owner, square)] = IGNORE_INDEX
    return label
