"""Soft non-maximum suppression: overlap lowers scores instead of removing boxes (Bodla et al., 2017).

One box follows from the other, so this runs on the CPU, as in mmcv, and in numpy, whose small steps cost less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from internvl_dense.openmmlab.ext_ops.computing import operator, widened

NAIVE, LINEAR, GAUSSIAN = range(3)  # mmcv's numbers
Array = npt.NDArray[Any]


@operator
def softnms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    dets: torch.Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> torch.Tensor:
    """Takes the best box, lowers the scores of the others, drops those below `min_score`, and so on.

    Among equal scores the first in memory wins. A dropped box is overwritten by the last one, which moves boxes about;
    the same is done here, so ties fall as in mmcv's CPU kernel, the only one that exists.

    Args:
        boxes: (N, 4), x1 y1 x2 y2.
        scores: (N,).
        dets: (N, 5), filled: the first rows hold the boxes that stay, with their lowered scores, best first.
        iou_threshold: Overlap from which scores are lowered; not used by the Gaussian.
        sigma: Of the Gaussian.
        min_score: Boxes that fall below are dropped.
        method: 0 sets the score to 0, 1 multiplies with 1 - iou, 2 with exp(-iou^2 / sigma).
        offset: Added to widths and heights.

    Returns:
        Indices of the boxes that stay, int64, in the order of `dets`.
    """
    rows = torch.cat([widened(boxes), widened(scores)[:, None]], 1).numpy()
    index = np.arange(len(rows))
    rank, count = 0, len(rows)
    while rank < count:
        best = rank + _first_best(rows[rank:count, 4])
        rows[[rank, best]], index[[rank, best]] = rows[[best, rank]], index[[best, rank]]
        rest = rows[rank + 1:count]
        rest[:, 4] *= _factors(_overlaps(rows[rank], rest, offset), iou_threshold, sigma, method)
        gone = rest[:, 4] < rows.dtype.type(min_score)
        if gone.any():
            before = _after_drops(gone)
            rest[:len(before)], index[rank + 1:rank + 1 + len(before)] = rest[before], index[rank + 1:][before]
            count = rank + 1 + len(before)
        rank += 1
    dets[:count] = torch.from_numpy(rows[:count]).to(dets.dtype)
    return torch.from_numpy(index[:count])


def _first_best(scores: Array) -> int:
    """Position of the first highest score; one that is not a number never wins against others, nor loses at first."""
    first = int(scores.argmax())  # the first that is not a number, if there is one
    if first and np.isnan(scores[first]):
        first = int(np.where(np.isnan(scores), -np.inf, scores).argmax())
    return first


def _overlaps(box: Array, others: Array, offset: int) -> Array:
    size = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2]) + offset
    both = np.maximum(size, 0).prod(1)
    sides, own = others[:, 2:4] - others[:, :2] + offset, box[2:4] - box[:2] + offset
    with np.errstate(divide='ignore', invalid='ignore'):  # boxes without area
        result: Array = both / (own[0] * own[1] + sides[:, 0] * sides[:, 1] - both)
    return result


def _factors(iou: Array, threshold: float, sigma: float, method: int) -> Array:
    if method == GAUSSIAN:
        result: Array = np.exp(-(iou * iou) / iou.dtype.type(sigma))
        return result
    lowered = 0 if method == NAIVE else 1 - iou
    return np.where(iou >= iou.dtype.type(threshold), lowered, iou.dtype.type(1))


def _after_drops(gone: Array) -> Array:
    """Where each box that stays was before: holes are filled from the end, the first hole by the last box."""
    count = len(gone) - int(gone.sum())
    result = np.arange(count)
    result[gone[:count]] = count + np.flatnonzero(~gone[count:])[::-1]
    return result
