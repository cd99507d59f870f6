"""Backgrounds of the sample data: gradients, clouds, soft lights, folds. None of them repeats."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from internvl_dense.data.sample_colours import background_colours

Canvas = npt.NDArray[np.float32]


def draw_background(rng: np.random.Generator, size_px: int) -> Canvas:
    """A random background: (size, size, 3) RGB in 0..255."""
    colours = background_colours(rng)
    draw = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    canvas = draw(rng, size_px, colours)
    return canvas + _grain(rng, size_px)[..., None]


def gradient(rng: np.random.Generator, size_px: int, colours: Canvas) -> Canvas:
    """From one colour to another along a random direction."""
    x, y = _unit_grid(size_px)
    angle = rng.uniform(0, 2 * np.pi)
    position = 0.5 + (x * np.cos(angle) + y * np.sin(angle)) / 2
    return _ramp(position + 0.12 * _clouds(rng, size_px, 2), colours)


def spotlight(rng: np.random.Generator, size_px: int, colours: Canvas) -> Canvas:
    """Round light that falls off towards the corners."""
    x, y = _unit_grid(size_px)
    centre_x, centre_y = rng.uniform(-0.6, 0.6, 2)
    position = np.hypot(x - centre_x, y - centre_y) / 1.8
    return _ramp(position + 0.08 * _clouds(rng, size_px, 3), colours)


def clouds(rng: np.random.Generator, size_px: int, colours: Canvas) -> Canvas:
    """Soft noise of several sizes."""
    return _ramp(0.5 + 0.55 * _clouds(rng, size_px, 3), colours)


def soft_lights(rng: np.random.Generator, size_px: int, colours: Canvas) -> Canvas:
    """Large out-of-focus discs on a gradient."""
    canvas = gradient(rng, size_px, colours)
    x, y = _unit_grid(size_px)
    for _ in range(rng.integers(4, 9)):
        centre_x, centre_y = rng.uniform(-1, 1, 2)
        distance = (rng.uniform(0.15, 0.45) - np.hypot(x - centre_x, y - centre_y)) / 0.06
        cover = np.clip(distance, 0, 1)[..., None] * rng.uniform(0.12, 0.3)
        canvas = canvas * (1 - cover) + colours[rng.integers(len(colours))] * cover
    return canvas.astype(np.float32)


def folds(rng: np.random.Generator, size_px: int, colours: Canvas) -> Canvas:
    """A few broad, bent bands, as of cloth: much wider than any pattern's period."""
    x, y = _unit_grid(size_px)
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle) + 0.5 * _clouds(rng, size_px, 2)
    return _ramp(0.5 + 0.5 * np.sin(along * rng.uniform(2.5, 5.0)), colours)


BACKGROUNDS: tuple[Callable[[np.random.Generator, int, Canvas], Canvas], ...] = (
    gradient,
    spotlight,
    clouds,
    soft_lights,
    folds,
)


def _unit_grid(size_px: int) -> tuple[Canvas, Canvas]:
    axis = np.linspace(-1, 1, size_px, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def _ramp(position: Canvas, colours: Canvas) -> Canvas:
    """Colours at positions 0..1 on the line through all `colours`."""
    place = np.clip(position, 0, 1).astype(np.float32) * (len(colours) - 1)
    stops = np.arange(len(colours))
    return np.stack([np.interp(place, stops, colours[:, channel]) for channel in range(3)], axis=-1).astype(np.float32)


def _clouds(rng: np.random.Generator, size_px: int, octaves: int) -> Canvas:
    """Smooth noise in about -1..1: random grids of 4, 8, 16 ... cells, each half as strong as the one before."""
    total = np.zeros((size_px, size_px), dtype=np.float32)
    for octave in range(octaves):
        cells = 4 * 2**octave
        grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        total += cv2.resize(grid, (size_px, size_px), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total


def _grain(rng: np.random.Generator, size_px: int) -> Canvas:
    """Fine noise, as of a sensor; strength in grey levels."""
    return rng.normal(0, rng.uniform(0.5, 3.0), (size_px, size_px)).astype(np.float32)
