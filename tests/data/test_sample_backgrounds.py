from __future__ import annotations

import cv2
import numpy as np
import pytest

from internvl_dense.data.sample_backgrounds import BACKGROUNDS, draw_background
from internvl_dense.data.sample_colours import background_colours


@pytest.mark.parametrize('draw', BACKGROUNDS, ids=lambda draw: draw.__name__)
def test_backgrounds_are_smooth_on_the_scale_of_the_patterns(draw: object) -> None:
    """What a blur over one pattern period takes away is little: stripes of the shapes lose far more."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        canvas = draw(rng, 140, background_colours(rng))  # type: ignore[operator]
        assert canvas.shape == (140, 140, 3) and canvas.dtype == np.float32
        detail = canvas - cv2.GaussianBlur(canvas, (0, 0), 5)
        assert np.abs(detail).mean() < 6


def test_backgrounds_vary() -> None:
    means = [draw_background(np.random.default_rng(seed), 56).mean(axis=(0, 1)) for seed in range(30)]
    assert np.std(means, axis=0).min() > 25
