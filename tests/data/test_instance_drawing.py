from __future__ import annotations

import itertools

import numpy as np
import pytest

from internvl_dense.data.instance_drawing import SHORT_SIDE_PX, draw_instances, enlarged, label_places
from internvl_dense.data.instances import InstanceClasses, Instances
from internvl_dense.errors import UserError

RED, GREEN = (200, 0, 0), (0, 200, 0)
NAMES = InstanceClasses(('tram', 'kite'), (RED, GREEN))
GREY = np.full((200, 300, 3), 100, dtype=np.uint8)


def objects(boxes: list[list[float]], scores: list[float], labels: list[int], masked: bool = True) -> Instances:
    masks = np.zeros((len(boxes), *GREY.shape[:2]), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[int(y0) + 10:int(y1) - 10, int(x0) + 10:int(x1) - 10] = True
    return Instances(np.array(boxes, dtype=float).reshape(-1, 4), np.array(scores, dtype=float),
                     np.array(labels, dtype=np.int64), masks if masked else None)


ONE = objects([[50, 60, 150, 140]], [0.9], [0])


def test_an_object_has_a_box_a_mask_and_a_label_in_its_colour() -> None:
    picture = draw_instances(GREY, ONE, NAMES, opacity=0.25)
    assert picture.dtype == np.uint8 and picture.shape == GREY.shape
    assert [tuple(picture[y, x]) for y, x in ((60, 100), (139, 100), (100, 50), (100, 149))] == [RED] * 4
    assert tuple(picture[100, 100]) == (125, 75, 75)
    assert tuple(picture[65, 100]) == (100, 100, 100), 'between box and mask the image shows'
    label = picture[40:60, 50:120].reshape(-1, 3)
    assert (label == RED).all(axis=1).mean() > 0.5 and (label == 255).all(axis=1).any()
    assert GREY.min() == GREY.max() == 100


def test_drawing_is_the_same_every_time_and_follows_the_score() -> None:
    two = objects([[50, 60, 150, 140], [60, 70, 160, 150]], [0.8, 0.9], [0, 1])
    picture = draw_instances(GREY, two, NAMES, opacity=1)
    np.testing.assert_array_equal(picture, draw_instances(GREY, two.take([1, 0]), NAMES, opacity=1))
    assert tuple(picture[100, 100]) == GREEN, 'the better one is in front'


def test_weak_objects_are_left_out() -> None:
    np.testing.assert_array_equal(draw_instances(GREY, ONE, NAMES, min_score=0.95), GREY)
    np.testing.assert_array_equal(draw_instances(GREY, objects([], [], []), NAMES), GREY)
    assert (draw_instances(GREY, ONE, NAMES, min_score=0.9) != GREY).any()


def test_models_without_masks_and_boxes_off_the_edge() -> None:
    boxes = [[-20, -20, 500, 500], [0, 0, 1, 1], [290, 190, 300, 200]]
    picture = draw_instances(GREY, objects(boxes, [0.9, 0.8, 0.7], [0, 1, 0], masked=False), NAMES)
    assert tuple(picture[199, 150]) == RED and tuple(picture[100, 299]) == RED
    assert tuple(picture[100, 150]) == (100, 100, 100)


@pytest.mark.parametrize('shape', [(1, 1), (3, 400), (400, 3), (8, 8)])
def test_pictures_of_any_size(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), dtype=np.uint8)
    found = Instances(np.array([[0, 0, shape[1], shape[0]]], dtype=float), np.ones(1), np.zeros(1, dtype=np.int64),
                      np.ones((1, *shape), dtype=bool))
    assert draw_instances(image, found, NAMES).shape == image.shape


def test_labels_lie_in_the_picture_and_keep_apart() -> None:
    boxes = [(40, 40, 140, 120), (45, 42, 145, 122), (250, 1, 299, 40), (0, 150, 60, 199)]
    places = label_places(boxes, [(80, 16)] * 4, 300, 200)
    assert places[0] == (40, 24, 120, 40), 'above the box'
    assert places[2] == (220, 1, 300, 17), 'inside, where there is no room above, and shifted to the left'
    for first, second in itertools.combinations(places, 2):
        assert first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]
    for x0, y0, x1, y1 in places:
        assert x0 >= 0 and y0 >= 0 and x1 <= 300 and y1 <= 200


def test_where_nothing_is_free_labels_overlap() -> None:
    assert len(label_places([(0, 0, 20, 20)] * 30, [(20, 16)] * 30, 20, 20)) == 30
    assert label_places([(0, 0, 5, 5)], [(80, 16)], 6, 6) == [(0, 0, 80, 16)]


def test_classes_get_colours_of_their_own() -> None:
    assert len(set(InstanceClasses(tuple(map(str, range(80)))).palette)) == 80
    assert len(InstanceClasses(tuple(map(str, range(1203)))).palette) == 1203
    with pytest.raises(UserError, match='1 colours for 2 classes'):
        InstanceClasses(('a', 'b'), (RED,))
    with pytest.raises(UserError, match='at least one class'):
        InstanceClasses(())


def test_small_pictures_are_enlarged_with_their_objects() -> None:
    image = np.arange(200 * 300 * 3, dtype=np.uint32).reshape(200, 300, 3).astype(np.uint8)
    large, found = enlarged(image, ONE)
    assert large.shape == (400, 600, 3) and min(large.shape[:2]) >= SHORT_SIDE_PX
    np.testing.assert_array_equal(large[::2, ::2], image)
    np.testing.assert_array_equal(large[1::2, 1::2], image)
    np.testing.assert_array_equal(found.boxes, 2 * ONE.boxes)
    assert found.masks.shape == (1, 400, 600) and found.masks.sum() == 4 * ONE.masks.sum()
    same, _ = enlarged(large, found)
    assert same is large
