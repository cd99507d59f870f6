from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from internvl_dense.errors import UserError
from internvl_dense.evaluation.miou import segmentation_metrics

NAMES = ('road', 'sky', 'tree', 'boat')
# road: 6 right, 2 called sky; sky: 3 right, 1 called tree; tree only predicted; boat nowhere.
COUNTS = [[6, 2, 0, 0], [0, 3, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_worked_by_hand():
    metrics = segmentation_metrics(torch.tensor(COUNTS), NAMES)
    road, sky = 6 / 8, 3 / 6
    assert metrics['per_class'] == {
        'road': {'IoU': road, 'Acc': 6 / 8},
        'sky': {'IoU': sky, 'Acc': 3 / 4},
        'tree': {'IoU': 0.0, 'Acc': None},
        'boat': {'IoU': None, 'Acc': None},
    }
    assert metrics['mIoU'] == pytest.approx((road + sky + 0) / 3, abs=1e-15)
    assert metrics['mIoU_all_classes'] == pytest.approx((road + sky) / 4, abs=1e-15)
    assert metrics['mAcc'] == pytest.approx((6 / 8 + 3 / 4) / 2, abs=1e-15)
    assert metrics['aAcc'] == 9 / 12


def test_exactly_these_keys_as_plain_numbers():
    metrics = segmentation_metrics(np.array(COUNTS), NAMES)
    assert list(metrics) == ['mIoU', 'mAcc', 'aAcc', 'mIoU_all_classes', 'per_class']
    assert all(type(metrics[key]) is float for key in ('mIoU', 'mAcc', 'aAcc', 'mIoU_all_classes'))
    assert all(type(score) in (float, type(None)) for row in metrics['per_class'].values() for score in row.values())


def test_both_conventions_agree_when_every_class_occurs():
    metrics = segmentation_metrics(torch.tensor([[5, 1], [2, 7]]), ('a', 'b'))
    assert metrics['mIoU'] == metrics['mIoU_all_classes']


def test_counts_beyond_32_bits():
    metrics = segmentation_metrics(torch.tensor([[2**40, 2**40], [0, 2**40 + 1]]), ('a', 'b'))
    assert metrics['per_class']['b']['IoU'] == (2**40 + 1) / (2**41 + 1)
    assert math.isclose(metrics['aAcc'], 2 / 3, rel_tol=1e-11)


@pytest.mark.parametrize(
    ('matrix', 'names', 'message'),
    [
        (torch.zeros(2, 2, dtype=torch.int64), ('a', 'b'), 'No pixel was counted'),
        (torch.eye(2).long(), ('a', 'b', 'c'), '3 class names for a confusion matrix of 2 classes'),
        (torch.eye(2).long(), ('a', 'a'), r"repeated: \['a'\]"),
        (torch.eye(2), ('a', 'b'), r'\(C, C\) integers, got \(2, 2\) float32'),
        (torch.ones(2, 3).long(), ('a', 'b'), r'got \(2, 3\) int64'),
    ],
)
def test_what_has_no_metrics(matrix: torch.Tensor, names: tuple[str, ...], message: str):
    with pytest.raises(UserError, match=message):
        segmentation_metrics(matrix, names)
