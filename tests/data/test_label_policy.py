from __future__ import annotations

import json

import numpy as np
import pytest

from internvl_dense.data.label_policy import LabelPolicy, default_palette
from internvl_dense.errors import UserError


def published_ids(raw: np.ndarray) -> np.ndarray:
    """The steps of reduce_zero_label in mmseg 1.x, on 8-bit ids: 0 -> 255, minus one, 254 -> 255."""
    ids = raw.copy()
    ids[ids == 0] = 255
    ids = ids - 1
    ids[ids == 254] = 255
    return ids


def test_train_ids_with_reduce_zero_label_follow_the_published_steps() -> None:
    policy = LabelPolicy(tuple(f'c{index}' for index in range(150)), reduce_zero_label=True)
    raw = np.array([[0, 1, 2], [149, 150, 255]], dtype=np.uint8)
    ids = policy.train_ids(raw)
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, [[255, 0, 1], [148, 149, 255]])
    np.testing.assert_array_equal(ids, published_ids(raw))


@pytest.mark.parametrize('reduce_zero_label', [False, True])
def test_ids_of_no_class_stay_so(reduce_zero_label: bool) -> None:
    policy = LabelPolicy(('a', 'b', 'c'), reduce_zero_label=reduce_zero_label)
    raw = np.array([4, 5, 254, 256, 257, 300, 65535], dtype=np.uint16)
    np.testing.assert_array_equal(policy.train_ids(raw), raw)
    assert not any(policy.is_known(int(raw_id)) for raw_id in raw)


def test_train_ids_without_it_are_the_raw_ids_in_an_array_of_their_own() -> None:
    raw = np.array([[0, 1, 255]], dtype=np.uint8)
    ids = LabelPolicy(('a', 'b')).train_ids(raw)
    np.testing.assert_array_equal(ids, raw)
    ids[0, 0] = 7
    assert raw[0, 0] == 0


@pytest.mark.parametrize('dtype', [np.int64, np.float32, np.bool_])
def test_train_ids_refuse_other_types(dtype: type) -> None:
    with pytest.raises(UserError, match='uint8 or uint16'):
        LabelPolicy(('a', 'b')).train_ids(np.zeros((2, 2), dtype=dtype))


def test_all_problems_are_listed_at_once() -> None:
    with pytest.raises(UserError) as caught:
        LabelPolicy(('a', 'a', 'b'), palette=((0, 0, 0), (1, 2, 300)), ignore_index=1)
    text = str(caught.value)
    assert '4 problems' in text
    for part in ('more than once: a', '2 colours for 3 classes', 'palette[1] = (1, 2, 300)', 'ignore_index = 1'):
        assert part in text


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'classes': ()}, 'classes is empty'),
        ({'classes': ('a',), 'ignore_index': -100}, '8-bit'),
        ({'classes': ('a',), 'ignore_index': 256}, '8-bit'),
        ({'classes': ('a',), 'ignore_index': 0}, 'reduce_zero_label=True where 0 marks'),
        ({'classes': ('a', 'b'), 'ignore_index': 2, 'reduce_zero_label': True}, 'also the id of a class'),
        ({'classes': tuple(map(str, range(255))), 'reduce_zero_label': True}, 'also the id of a class'),
    ],
)
def test_impossible_policies_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LabelPolicy(**options)


def test_255_classes_fit_without_reduce_zero_label() -> None:
    assert LabelPolicy(tuple(map(str, range(255)))).num_classes == 255


def test_describe_shows_every_known_id_and_the_unknown_ones_found() -> None:
    policy = LabelPolicy(('wall', 'sky'), reduce_zero_label=True)
    lines = policy.describe().splitlines()
    assert [line.split() for line in lines[1:]] == [
        ['0', '255', '(ignored)'],
        ['1', '0', 'wall'],
        ['2', '1', 'sky'],
        ['255', '255', '(ignored)'],
    ]
    table = policy.describe({1: 75, 9: 25})
    assert '75 (75.00 %)' in table
    assert '9' in table and 'out of range' in table


def test_as_dict_is_plain_and_comes_back() -> None:
    policy = LabelPolicy(('a', 'b'), reduce_zero_label=True)
    data = json.loads(json.dumps(policy.as_dict()))
    assert LabelPolicy.from_dict(data) == policy
    with pytest.raises(UserError, match='allows'):
        LabelPolicy.from_dict({**data, 'reduce_zero_lable': True})
    with pytest.raises(UserError, match='needs classes'):
        LabelPolicy.from_dict({})


def test_default_palette_is_distinct_and_the_same_every_time() -> None:
    palette = default_palette(255)
    assert len(set(palette)) == 255
    assert palette[:20] == default_palette(20)
    array = np.array(default_palette(20), dtype=int)
    distance = np.abs(array[:, None] - array[None]).sum(-1) + 999 * np.eye(20, dtype=int)
    assert distance.min() >= 40
