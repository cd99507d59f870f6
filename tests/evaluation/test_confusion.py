from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_dense.errors import UserError
from internvl_dense.evaluation.confusion import ConfusionMatrix

IGNORE = 255


def counted(pred: torch.Tensor, label: torch.Tensor, num_classes: int, ignore_index: int = IGNORE) -> ConfusionMatrix:
    matrix = ConfusionMatrix(num_classes, ignore_index)
    matrix.update(pred, label)
    return matrix


def ids(*rows: list[int], dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(rows, dtype=dtype)


def test_rows_are_labels_and_columns_predictions():
    matrix = counted(pred=ids([0, 1, 1], [2, 2, 2]), label=ids([0, 0, 0], [2, 1, IGNORE]), num_classes=3).matrix
    assert matrix.tolist() == [[1, 2, 0], [0, 0, 1], [0, 0, 1]]
    assert matrix.dtype == torch.int64


@settings(max_examples=40, deadline=None)
@given(
    num_classes=st.integers(1, 9),
    shape=st.sampled_from([(1, 1), (5, 7), (3, 4, 6)]),
    ignore_index=st.sampled_from([255, 0, -100]),
    seed=st.integers(0, 2**16),
)
def test_equals_counting_pixel_by_pixel(num_classes, shape, ignore_index, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, num_classes, shape)
    label[rng.random(shape) < 0.3] = ignore_index
    pred = rng.integers(0, num_classes, shape)
    expected = np.zeros((num_classes, num_classes), dtype=np.int64)
    for row, column in zip(label.ravel(), pred.ravel(), strict=True):
        if row != ignore_index:
            expected[row, column] += 1
    matrix = counted(torch.from_numpy(pred), torch.from_numpy(label), num_classes, ignore_index).matrix
    assert np.array_equal(matrix.numpy(), expected)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integer_types_count_alike(dtype: torch.dtype):
    num_classes = 20  # 19 * 20 + 19 does not fit in 8 bits
    label, pred = torch.arange(num_classes), torch.arange(num_classes).flip(0)
    label[0] = 120
    expected = counted(pred[None], label[None], num_classes, ignore_index=120).matrix
    assert torch.equal(counted(pred[None].to(dtype), label[None].to(dtype), num_classes, 120).matrix, expected)


def test_exact_beyond_what_a_float_holds():
    pixels = 2**24 + 3  # the next float32 is 2**24 + 4
    total, part = ConfusionMatrix(2), counted(ids([1]), ids([1]), 2)
    for bit in range(pixels.bit_length()):
        if pixels >> bit & 1:
            total.merge(part)
        part.merge(part)
    assert total.matrix.tolist() == [[0, 0], [0, pixels]]


def test_merged_parts_equal_the_whole():
    generator = torch.Generator().manual_seed(0)
    pred, label = torch.randint(0, 4, (2, 6, 8, 8), generator=generator)
    whole, left, right = (counted(pred[part], label[part], 4) for part in (slice(None), slice(2), slice(2, None)))
    left.merge(right)
    assert torch.equal(left.matrix, whole.matrix)


@pytest.mark.parametrize('other', [ConfusionMatrix(4), ConfusionMatrix(3, ignore_index=0)])
def test_merging_what_counts_otherwise_is_refused(other: ConfusionMatrix):
    with pytest.raises(UserError, match=r'num_classes, ignore_index.*\(3, 255\) here'):
        ConfusionMatrix(3).merge(other)


def test_matrix_is_a_copy():
    matrix = counted(ids([0]), ids([0]), 2)
    before = matrix.matrix
    matrix.update(ids([0]), ids([0]))
    assert before[0, 0] == 1


def test_label_ids_that_are_no_class_are_named():
    label = torch.zeros(100, 100, dtype=torch.uint8)
    label[:90] = 200
    matrix = counted(torch.zeros(100, 100, dtype=torch.int64), label, num_classes=150)
    assert int(matrix.num_outside) == 9000
    for read in (matrix.check, lambda: matrix.matrix):
        with pytest.raises(UserError, match=r'Ids outside 0..149: 1 problem\n.*labels hold id 200 \(9000 px\);'):
            read()


@pytest.mark.parametrize(
    ('pred', 'label', 'message'),
    [
        (ids([2, 0]), ids([0, 0]), r'predictions hold id 2 \(1 px\)'),
        (ids([-1, 0]), ids([0, 0]), r'predictions hold ids below 0 \(1 px\)'),
        (ids([0, 0]), ids([-100, 0]), r'labels hold ids below 0 \(1 px\)'),
        (ids([0, 0]), ids([65535, 65536]), r'labels hold id 65535 \(1 px\), ids above 65535 \(1 px\)'),
        (ids([0, 0]), ids([2**32, 2**32 + 1]), r'labels hold ids above 65535 \(2 px\)'),
        (ids([-(2**32), 0]), ids([0, 0]), r'predictions hold ids below 0 \(1 px\)'),
        (ids([0, 0]), ids([300, 0], dtype=torch.int32), r'labels hold id 300 \(1 px\)'),
    ],
)
def test_every_kind_of_wrong_id_is_named(pred: torch.Tensor, label: torch.Tensor, message: str):
    with pytest.raises(UserError, match=message):
        counted(pred, label, num_classes=2).check()


def test_all_kinds_at_once_and_long_lists_are_cut():
    label, pred = torch.zeros(2, 30, dtype=torch.int64), torch.zeros(2, 30, dtype=torch.int64)
    label[0] = torch.arange(10, 40)
    pred[1, 0] = 7
    with pytest.raises(UserError) as caught:
        counted(pred, label, num_classes=2).check()
    assert '2 problems' in str(caught.value)
    assert 'id 17 (1 px), 22 more ids (22 px);' in str(caught.value)
    assert 'predictions hold id 7 (1 px)' in str(caught.value)


def test_predictions_do_not_matter_where_the_label_is_ignored():
    assert counted(ids([99, -1, 1]), ids([IGNORE, IGNORE, 1]), num_classes=2).matrix.tolist() == [[0, 0], [0, 1]]


def test_an_ignored_id_outside_8_bits_does_not_match_8_bit_labels():
    label = torch.full((1, 4), 156, dtype=torch.uint8)  # -100 modulo 256
    with pytest.raises(UserError, match=r'id 156 \(4 px\)'):
        counted(torch.zeros(1, 4, dtype=torch.uint8), label, num_classes=2, ignore_index=-100).check()


@pytest.mark.parametrize(
    ('pred', 'label', 'message'),
    [
        (torch.zeros(4, 5).long(), torch.zeros(5, 4).long(), r'\(4, 5\) and the label \(5, 4\)'),
        (torch.zeros(20).long(), torch.zeros(20).long(), r'prediction is \(20,\), not \(H, W\)'),
        (torch.zeros(1, 1, 4, 5).long(), torch.zeros(1, 1, 4, 5).long(), r'label is \(1, 1, 4, 5\)'),
        (torch.zeros(4, 5), torch.zeros(4, 5).long(), 'prediction is torch.float32'),
        (torch.zeros(4, 5).long(), torch.zeros(4, 5).bool(), 'label is torch.bool'),
    ],
)
def test_maps_that_cannot_be_compared(pred: torch.Tensor, label: torch.Tensor, message: str):
    matrix = ConfusionMatrix(2)
    with pytest.raises(UserError, match=message):
        matrix.update(pred, label)
    assert matrix.counts.sum() == 0


@pytest.mark.parametrize('num_classes', [0, -1, 50_000])
def test_impossible_numbers_of_classes(num_classes: int):
    with pytest.raises(UserError, match='1 to 46'):
        ConfusionMatrix(num_classes)


def test_counting_never_waits_for_the_device():
    # Meta tensors have no values, so whatever looks at one fails here; `bincount` does.
    pred = torch.zeros(4, 5, dtype=torch.int64, device='meta')
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.bincount(pred.flatten(), minlength=9)
    matrix = counted(pred, pred, num_classes=3)
    total = ConfusionMatrix(3)
    total.merge(matrix)
    assert total.num_outside.device == total.counts.device == torch.device('meta')
