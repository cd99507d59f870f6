from __future__ import annotations

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile

from internvl_dense.openmmlab.pipelines import rgb, step_type


@pytest.mark.parametrize(('kind', 'name'), [
    ('Resize', 'Resize'), ('mmseg.LoadAnnotations', 'LoadAnnotations'), (LoadImageFromFile, 'LoadImageFromFile'),
])
def test_step_type(kind, name):
    assert step_type({'type': kind}) == name
    assert step_type({}) == ''


@pytest.mark.parametrize(('pixel', 'expected'), [
    ([1, 2, 3], [3, 2, 1]), ([1, 2, 3, 255], [3, 2, 1]), ([7], [7, 7, 7]), ([-3.0, 2.6, 300.0], [255, 2, 0]),
])
def test_rgb(pixel, expected):
    image = np.array([[pixel] * 2])
    np.testing.assert_array_equal(rgb(image), np.array([[expected] * 2], dtype=np.uint8))


def test_rgb_of_a_grey_image_without_channels():
    np.testing.assert_array_equal(rgb(np.array([[7, 8]])), [[[7] * 3, [8] * 3]])
