from __future__ import annotations

import cv2
import numpy as np
import pytest

from internvl_dense.data.sample_outlines import OUTLINES, DrawOutline


@pytest.mark.parametrize('draw', OUTLINES, ids=lambda draw: draw.__name__)
def test_outlines_are_closed_curves_of_about_the_radius(draw: DrawOutline) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = draw(rng, 20.0)
        radii = np.hypot(points[:, 0], points[:, 1])
        steps = np.hypot(*(np.roll(points, -1, axis=0) - points).T)
        assert radii.min() > 4 and radii.max() < 32
        assert steps.max() < 8
        # A disc of the radius has 1257 square pixels; every kind stays between a third of it and a half more.
        assert 420 < cv2.contourArea(points.astype(np.float32)) < 1900
