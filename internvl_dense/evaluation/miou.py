"""IoU and accuracy from a confusion matrix, in both conventions for classes that do not occur."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch

from internvl_dense.errors import UserError


class ClassScores(TypedDict):
    """Fractions 0..1 of one class.

    `IoU` is None if the class is in neither labels nor predictions, `Acc` (recall) if it is not in the labels.
    """

    IoU: float | None
    Acc: float | None


class Metrics(TypedDict):
    """Unrounded fractions 0..1 of a whole data set.

    `mIoU` is the mean over classes that occur in labels or predictions, as mmsegmentation reports it.
    `mIoU_all_classes` is the sum divided by the number of all classes, one that does not occur counting 0, as the
    ADE20K development kit (github.com/CSAILVision/sceneparsing, evaluationCode) reports it. `mAcc` is the mean over
    classes that occur in the labels, `aAcc` the share of right pixels.
    """

    mIoU: float
    mAcc: float
    aAcc: float
    mIoU_all_classes: float
    per_class: dict[str, ClassScores]


def segmentation_metrics(matrix: torch.Tensor | npt.NDArray[np.integer], class_names: Sequence[str]) -> Metrics:
    """Metrics of a data set from its pixel counts.

    Args:
        matrix: (C, C) integer counts; row = label, column = prediction.
        class_names: C different names.

    Raises:
        UserError: The matrix is not square or not of integers, the names do not fit it, or no pixel was counted.
    """
    counts = _as_counts(matrix)
    _require_names(class_names, len(counts))
    right, labelled, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    if not labelled.any():
        raise UserError(
            'No pixel was counted: there is no image, or every label pixel has the ignored id. '
            'Check the data folders and ignore_index.'
        )
    iou = [_ratio(*pair) for pair in zip(right, labelled + predicted - right, strict=True)]
    acc = [_ratio(*pair) for pair in zip(right, labelled, strict=True)]
    return {
        'mIoU': _mean(iou),
        'mAcc': _mean(acc),
        'aAcc': int(right.sum()) / int(labelled.sum()),
        'mIoU_all_classes': math.fsum(value or 0.0 for value in iou) / len(iou),
        'per_class': {name: {'IoU': i, 'Acc': a} for name, i, a in zip(class_names, iou, acc, strict=True)},
    }


def _as_counts(matrix: torch.Tensor | npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    counts = np.asarray(matrix.cpu() if isinstance(matrix, torch.Tensor) else matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not np.issubdtype(counts.dtype, np.integer):
        raise UserError(f'a confusion matrix is (C, C) integers, got {counts.shape} {counts.dtype}')
    return counts.astype(np.int64)


def _require_names(class_names: Sequence[str], num_classes: int) -> None:
    if len(class_names) != num_classes:
        raise UserError(f'{len(class_names)} class names for a confusion matrix of {num_classes} classes')
    repeated = [name for name, times in Counter(class_names).items() if times > 1]
    if repeated:
        raise UserError(f'Class names must differ, since results are listed by name; repeated: {repeated}')


def _ratio(part: np.int64, whole: np.int64) -> float | None:
    return int(part) / int(whole) if whole else None


def _mean(values: Sequence[float | None]) -> float:
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined)
