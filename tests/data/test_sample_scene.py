from __future__ import annotations

import numpy as np
import pytest

from internvl_dense.data.sample_patterns import PATTERNS
from internvl_dense.data.sample_scene import IGNORE_INDEX, Scene, draw_scene


@pytest.fixture(scope='module')
def scenes() -> list[Scene]:
    return [draw_scene(np.random.default_rng(seed), 140) for seed in range(30)]


def test_equal_states_give_equal_pictures() -> None:
    first, second = (draw_scene(np.random.default_rng(3), 70) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.label, second.label)
    assert not np.array_equal(first.image, draw_scene(np.random.default_rng(4), 70).image)


def test_labels_agree_with_instances(scenes: list[Scene]) -> None:
    for scene in scenes:
        truth = np.zeros_like(scene.label)
        for instance in scene.instances:
            assert truth[instance.mask].max() == 0, 'visible parts do not overlap'
            truth[instance.mask] = instance.class_id
        counted = scene.label != IGNORE_INDEX
        np.testing.assert_array_equal(scene.label[counted], truth[counted])


def test_the_ignored_line_is_two_pixels_wide(scenes: list[Scene]) -> None:
    for scene in scenes:
        ignored = (scene.label == IGNORE_INDEX).mean()
        assert 0.01 < ignored < 0.2
        for instance in scene.instances:
            # From inside the shape to outside along a row: exactly one pixel on each side is ignored, or more
            # where the outline runs nearly along the row.
            row = np.flatnonzero(instance.mask.any(axis=1))[instance.mask.any(axis=1).sum() // 2]
            left = int(np.flatnonzero(instance.mask[row])[0])
            if left > 0:
                assert scene.label[row, left] == scene.label[row, left - 1] == IGNORE_INDEX


def test_shapes_are_large_and_mostly_visible(scenes: list[Scene]) -> None:
    counts = [len(scene.instances) for scene in scenes]
    assert min(counts) >= 2 and 3.5 < np.mean(counts) < 6
    areas = [int(instance.mask.sum()) for scene in scenes for instance in scene.instances]
    assert min(areas) > 200
    assert np.median(areas) > 1200


def test_every_class_is_drawn_about_as_often(scenes: list[Scene]) -> None:
    ids = [instance.class_id for scene in scenes for instance in scene.instances]
    share = np.bincount(ids, minlength=len(PATTERNS) + 1)[1:] / len(ids)
    assert share.min() > 0.1


def test_colour_says_nothing_about_the_class(scenes: list[Scene]) -> None:
    """Mean colours of the classes differ no more than those of as many random groups of shapes would."""
    shapes = [(i.class_id, s.image[i.mask].mean(axis=0)) for s in scenes for i in s.instances]
    ids = np.array([class_id for class_id, _ in shapes])
    colours = np.array([colour for _, colour in shapes])

    def spread(groups: np.ndarray) -> float:
        return float(np.std([colours[groups == group].mean(axis=0) for group in np.unique(ids)], axis=0).sum())

    rng = np.random.default_rng(0)
    by_chance = [spread(rng.permutation(ids)) for _ in range(200)]
    assert spread(ids) < np.quantile(by_chance, 0.999)
