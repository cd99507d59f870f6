from __future__ import annotations

import numpy as np
import pytest

from internvl_dense.data.sample_patterns import PATTERNS, Pattern

SIZE = 96


def drawn(pattern: Pattern, seed: int) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    return pattern.draw(np.random.default_rng(seed), x, y)


def directions(cover: np.ndarray) -> float:
    """Main direction of change in degrees (0 along x, 90 along y), and 180 the same as 0."""
    down, across = np.gradient(cover)
    xx, yy, xy = (across**2).mean(), (down**2).mean(), (across * down).mean()
    return float(np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) % 180)


def one_sidedness(cover: np.ndarray) -> float:
    """1 where all change runs along one direction, 0 where along two equally."""
    down, across = np.gradient(cover)
    tensor = np.array([[(across**2).mean(), (across * down).mean()], [(across * down).mean(), (down**2).mean()]])
    small, large = np.linalg.eigvalsh(tensor)
    return float((large - small) / (large + small))


@pytest.mark.parametrize('pattern', PATTERNS, ids=lambda pattern: pattern.name)
def test_cover_is_a_share_and_both_colours_show(pattern: Pattern) -> None:
    for seed in range(10):
        cover = drawn(pattern, seed)
        assert cover.min() >= 0 and cover.max() <= 1
        assert 0.2 < cover.mean() < 0.8
        assert cover.std() > 0.25


@pytest.mark.parametrize(
    ('name', 'expected'), [('horizontal stripes', (90,)), ('vertical stripes', (0,)), ('diagonal stripes', (45, 135))]
)
def test_stripes_run_as_named(name: str, expected: tuple[int, ...]) -> None:
    pattern = next(pattern for pattern in PATTERNS if pattern.name == name)
    nearest = []
    for seed in range(20):
        cover = drawn(pattern, seed)
        assert one_sidedness(cover) > 0.9
        turns = [abs((directions(cover) - angle + 90) % 180 - 90) for angle in expected]
        assert min(turns) <= pattern.tilt_deg + 2
        nearest.append(int(np.argmin(turns)))
    assert set(nearest) == set(range(len(expected)))


@pytest.mark.parametrize('name', ['checks', 'dots'])
def test_checks_and_dots_repeat_both_ways(name: str) -> None:
    pattern = next(pattern for pattern in PATTERNS if pattern.name == name)
    assert all(one_sidedness(drawn(pattern, seed)) < 0.2 for seed in range(10))


def test_names_are_unique() -> None:
    assert len({pattern.name for pattern in PATTERNS}) == len(PATTERNS)
