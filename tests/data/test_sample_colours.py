from __future__ import annotations

import numpy as np

from internvl_dense.data.sample_colours import background_colours, shape_colours

# Luma of ITU-R BT.601, what a grey conversion of 8-bit RGB uses.
LUMA = np.array([0.299, 0.587, 0.114])


def test_the_two_colours_of_a_shape_can_be_told_apart() -> None:
    rng = np.random.default_rng(0)
    pairs = [shape_colours(rng) for _ in range(500)]
    contrast = [abs((first - second) @ LUMA) for first, second in pairs]
    assert min(contrast) > 25
    assert np.median(contrast) > 80
    lighter_first = np.mean([(first - second) @ LUMA > 0 for first, second in pairs])
    assert 0.4 < lighter_first < 0.6


def test_colours_are_valid() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        for colours in (shape_colours(rng), background_colours(rng)):
            assert colours.min() >= 0 and colours.max() <= 255
