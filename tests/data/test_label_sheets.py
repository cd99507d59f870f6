from __future__ import annotations

import numpy as np
import pytest

from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.data.label_sheets import HEIGHT_PX, LabelledImage, label_sheet
from internvl_dense.errors import UserError

POLICY = LabelPolicy(('sky', 'road', 'tree'), ((10, 20, 30), (200, 0, 0), (0, 200, 0)))
WHITE = [255, 255, 255]


def sample(ids: list[list[int]], size: tuple[int, int] | None = None, level: int = 100) -> LabelledImage:
    array = np.kron(np.array(ids), np.ones((60, 40), dtype=np.int64))
    return LabelledImage('x.jpg', np.full((*(size or array.shape), 3), level, dtype=np.uint8), array)


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


def test_image_overlay_and_legend_of_what_occurs():
    sheet = label_sheet([sample([[0, 1]])], POLICY, opacity=0.5)
    found = colours(sheet)
    assert {(100, 100, 100), (55, 60, 65), (150, 50, 50)} <= found  # image, and both classes over it
    assert {POLICY.palette[0], POLICY.palette[1]} <= found  # legend
    assert POLICY.palette[2] not in found


def test_ignored_pixels_show_the_image():
    found = colours(label_sheet([sample([[0, 255]])], POLICY, opacity=1.0))
    assert (100, 100, 100) in found and POLICY.palette[1] not in found


def test_an_image_of_another_size_is_drawn_at_the_size_of_its_label():
    same = label_sheet([sample([[0, 1]])], POLICY)
    resized = label_sheet([sample([[0, 1]], size=(25, 31))], POLICY)
    np.testing.assert_array_equal(same, resized)


def test_two_samples_a_row_and_an_empty_place():
    one, two, three = (label_sheet([sample([[0, 1]])] * count, POLICY) for count in (1, 2, 3))
    assert two.shape[1] > one.shape[1]
    assert three.shape[0] - two.shape[0] > HEIGHT_PX
    assert two.shape[1] == three.shape[1]
    half = three.shape[1] // 2
    assert (three[two.shape[0] + 60:two.shape[0] + 200, half + 20:] == WHITE).all()


def test_ids_without_a_class_name_the_image():
    with pytest.raises(UserError, match=r'x.jpg: ids \[7\] have no colour'):
        label_sheet([sample([[0, 7]])], POLICY)


def test_no_samples():
    with pytest.raises(UserError, match='contact sheet'):
        label_sheet([], POLICY)
