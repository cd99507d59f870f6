"""The patterns that make the sample data's classes: coverage in 0..1 at every pixel, with smooth edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.floating]

# Degrees by which a pattern may be turned away from its nominal direction.
TILT_DEG = 8.0


@dataclass(frozen=True)
class Pattern:
    """One class of the sample data.

    Args:
        name: Class name.
        period_px: Range of the repeat length.
        directions_deg: Nominal directions in which the pattern repeats; one is drawn.
        tilt_deg: Largest turn away from it.
        cover: (u, v, period, share) -> how much of each pixel carries the second colour; u runs along the direction.
    """

    name: str
    period_px: tuple[float, float]
    directions_deg: tuple[float, ...]
    tilt_deg: float
    cover: Callable[[Plane, Plane, float, float], Plane]

    def draw(self, rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
        """The pattern at the pixel positions x, y, with random period, phase, direction and share of the colours."""
        period = rng.uniform(*self.period_px)
        tilt = rng.uniform(-self.tilt_deg, self.tilt_deg)
        angle = np.deg2rad(rng.choice(self.directions_deg) + tilt)
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        shift_u, shift_v = (np.float32(value) for value in rng.uniform(0, period, 2))
        u = x * cosine + y * sine + shift_u
        v = y * cosine - x * sine + shift_v
        return self.cover(u, v, period, rng.uniform(0.42, 0.58))


def _stripes(u: Plane, v: Plane, period: float, share: float) -> Plane:
    from_middle = _from_cell_middle(u, period)
    return _smooth_edge(np.abs(from_middle) - period * share / 2)


def _checks(u: Plane, v: Plane, period: float, share: float) -> Plane:
    across, down = (2 * _stripes(axis, axis, period, 0.5) - 1 for axis in (u, v))
    return 0.5 + 0.5 * across * down


def _dots(u: Plane, v: Plane, period: float, share: float) -> Plane:
    # share 0.42..0.58 of a line becomes a radius of 0.27..0.38 periods.
    radius = period * share * 0.65
    distance = np.hypot(_from_cell_middle(u, period), _from_cell_middle(v, period))
    return _smooth_edge(distance - radius)


def _from_cell_middle(position: Plane, period: float) -> Plane:
    """Signed pixels to the middle of the cell that holds `position`."""
    return np.mod(position, np.float32(period)) - np.float32(period / 2)


def _smooth_edge(distance_px: Plane) -> Plane:
    """1 inside (negative distance), 0 outside, a ramp one pixel wide between: what a pixel's area would cover."""
    return np.clip(np.float32(0.5) - distance_px, 0, 1).astype(np.float32)


PATTERNS: tuple[Pattern, ...] = (
    Pattern('horizontal stripes', (4.5, 10.0), (90.0,), TILT_DEG, _stripes),
    Pattern('vertical stripes', (4.5, 10.0), (0.0,), TILT_DEG, _stripes),
    # Both diagonals: a flipped image must keep its class.
    Pattern('diagonal stripes', (4.5, 10.0), (45.0, 135.0), TILT_DEG, _stripes),
    Pattern('checks', (8.0, 13.0), (0.0,), TILT_DEG, _checks),
    Pattern('dots', (6.0, 10.0), (0.0,), 45.0, _dots),
)
