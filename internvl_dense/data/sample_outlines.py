"""Closed outlines of the sample data's shapes: points around the origin, in pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.floating]
DrawOutline = Callable[[np.random.Generator, float], Points]

NUM_POINTS = 180


def draw_outline(rng: np.random.Generator, radius_px: float) -> Points:
    """A random outline of about the given radius: (N, 2) x, y."""
    draw = OUTLINES[rng.integers(len(OUTLINES))]
    return draw(rng, radius_px)


def blob(rng: np.random.Generator, radius_px: float) -> Points:
    """A circle with three slow waves on its rim."""
    angles = _angles()
    radii = np.ones(NUM_POINTS)
    for waves in (2, 3, 4):
        radii += rng.uniform(0.02, 0.13) * np.cos(waves * angles + rng.uniform(0, 2 * np.pi))
    return _from_polar(angles, radius_px * radii)


def flower(rng: np.random.Generator, radius_px: float) -> Points:
    """Five to seven soft petals."""
    angles = _angles()
    petals = rng.integers(5, 8)
    radii = 1 + rng.uniform(0.08, 0.14) * np.cos(petals * angles + rng.uniform(0, 2 * np.pi))
    return _from_polar(angles, radius_px * radii)


def squircle(rng: np.random.Generator, radius_px: float) -> Points:
    """A superellipse: between an ellipse (exponent 2) and a rectangle, turned at random."""
    angles = _angles()
    exponent = rng.uniform(2.0, 5.0)
    aspect = rng.uniform(0.65, 1.0)
    cosine, sine = np.cos(angles), np.sin(angles)
    radii = (np.abs(cosine) ** exponent + np.abs(sine / aspect) ** exponent) ** (-1 / exponent)
    return _rotate(_from_polar(angles, radius_px * radii), rng.uniform(0, np.pi))


def rounded_polygon(rng: np.random.Generator, radius_px: float) -> Points:
    """Three to six corners, cut off until they are round."""
    corners = rng.integers(3, 7)
    spread = rng.uniform(-0.18, 0.18, corners)
    angles = (np.arange(corners) + spread) * 2 * np.pi / corners + rng.uniform(0, 2 * np.pi)
    # A triangle covers less of its circle than a hexagon: made larger so that all shapes weigh about the same.
    scale = {3: 1.35, 4: 1.2}.get(int(corners), 1.1)
    points = _from_polar(angles, scale * radius_px * rng.uniform(0.88, 1.08, corners))
    for _ in range(4):
        points = _cut_corners(points)
    return points


OUTLINES: tuple[DrawOutline, ...] = (blob, flower, squircle, rounded_polygon)


def _angles() -> npt.NDArray[np.floating]:
    return np.arange(NUM_POINTS) * (2 * np.pi / NUM_POINTS)


def _from_polar(angles: npt.NDArray[np.floating], radii: npt.NDArray[np.floating]) -> Points:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _rotate(points: Points, angle: float) -> Points:
    cosine, sine = np.cos(angle), np.sin(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def _cut_corners(points: Points) -> Points:
    """One round of Chaikin's corner cutting: each edge keeps its middle half."""
    following = np.roll(points, -1, axis=0)
    pairs = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1)
    return pairs.reshape(-1, 2)
