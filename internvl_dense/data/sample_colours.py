"""Colours of the sample data. They are drawn without a look at the class: colour must not give it away."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

Colours = npt.NDArray[np.float32]

# Hue of the second colour against the first, in turns: close, split, opposite.
HUE_STEPS = (0.0, 0.06, -0.06, 0.33, 0.5)


def shape_colours(rng: np.random.Generator) -> Colours:
    """A dark and a light colour in random order: (2, 3) RGB in 0..255, far enough apart to see the pattern."""
    hue = rng.uniform()
    other = hue + rng.choice(HUE_STEPS) + rng.uniform(-0.02, 0.02)
    dark = _rgb(hue, rng.uniform(0.45, 0.95), rng.uniform(0.25, 0.6))
    light = _rgb(other, rng.uniform(0.05, 0.5), rng.uniform(0.85, 1.0))
    return np.array([dark, light] if rng.uniform() < 0.5 else [light, dark], dtype=np.float32)


def background_colours(rng: np.random.Generator) -> Colours:
    """Three related colours: (3, 3) RGB in 0..255, from pale to deep."""
    hue = rng.uniform()
    saturation = rng.uniform(0.1, 0.6)
    value = rng.uniform(0.3, 0.95)
    return np.array(
        [
            _rgb(
                hue + rng.uniform(-0.1, 0.1),
                saturation * rng.uniform(0.6, 1.2),
                value * rng.uniform(0.75, 1.15),
            )
            for _ in range(3)
        ],
        dtype=np.float32,
    )


def _rgb(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0))
    return 255 * red, 255 * green, 255 * blue
