"""Greedy non-maximum suppression of axis-parallel boxes, and the groups it forms."""

from __future__ import annotations

from collections.abc import Callable

import torch

from internvl_dense.openmmlab.ext_ops import torchvision_kernels
from internvl_dense.openmmlab.ext_ops.computing import operator, single, widened

# How many boxes are compared with how many at once. On a CPU the tables stay in the cache; on a GPU few steps are
# better than little memory, which is 0.5 GB for each of about 3 tables.
CPU_BLOCK, GPU_BLOCK = (256, 1024), (2048, 65536)

Rule = Callable[[torch.Tensor], torch.Tensor]  # overlaps in, 1 for a hit and 0 for none out


@operator
def nms(bboxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int = 0) -> torch.Tensor:
    """Boxes that overlap no better one by more than a threshold.

    Equal scores rank as torch's plain sort leaves them, as in mmcv: saturated scores are equal often enough to change
    which regions a batch trains on. The overlap is a quotient of float32 numbers (float64 for such boxes) and compared
    as `iou > threshold`, as mmcv's CPU kernel does; its CUDA kernel multiplies instead, which can decide differently
    only where both sides agree but for rounding, or where a box has a negative area.

    Args:
        bboxes: (N, 4), x1 y1 x2 y2.
        scores: (N,).
        iou_threshold: In [0, 1].
        offset: Added to widths and heights: 1 where boxes name their last pixel, else 0.

    Returns:
        Indices of the boxes that stay, int64, best first.
    """
    if torchvision_kernels.fit_nms(bboxes, scores, offset):
        return torchvision_kernels.nms(bboxes, scores, single(iou_threshold))
    order = scores.sort(descending=True)[1]  # the very call of mmcv's kernel, so that ties rank as there
    suppressor = _suppressors(widened(bboxes)[order], offset, lambda iou: iou.gt_(iou_threshold))
    return order[suppressor == torch.arange(len(order), device=order.device)]


@operator
def nms_match(dets: torch.Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of a kept box and those it suppressed (`iou >= threshold`), best first.

    Args:
        dets: (N, 5), x1 y1 x2 y2 score.
        iou_threshold: In [0, 1].
    """
    order = dets[:, 4].sort(descending=True)[1]
    suppressor = _suppressors(widened(dets)[order, :4], 0, lambda iou: iou.ge_(iou_threshold))
    groups: dict[int, list[int]] = {}
    for box, by in zip(order.tolist(), suppressor.tolist(), strict=True):
        groups.setdefault(by, []).append(box)  # a kept box comes before those it suppresses
    return list(groups.values())


def _suppressors(boxes: torch.Tensor, offset: int, is_hit: Rule) -> torch.Tensor:
    """For each box, best first, the position of the kept box that removed it, or its own where it stays."""
    result = torch.arange(len(boxes), device=boxes.device)
    block, others = CPU_BLOCK if boxes.device.type == 'cpu' else GPU_BLOCK
    left = result.clone()
    while len(left):
        head, tail = left[:block], left[block:]
        hits = is_hit(_overlaps(boxes[head], boxes[head], offset)).triu_(1)
        stays = _undominated(hits)
        keeper = head[stays]
        _assign(result, hits[stays], keeper, head)
        left = torch.cat([
            part[_assign(result, is_hit(_overlaps(boxes[keeper], boxes[part], offset)), keeper, part)]
            for part in tail.split(others)])
    return result


def _undominated(hits: torch.Tensor) -> torch.Tensor:
    """Which boxes stay where `hits[i, j]` says that i, if it stays, removes j > i.

    Starting from "all stay", each round settles at least one more box for good, so the only fixed point is reached;
    in practice within a few rounds.
    """
    stays = torch.ones(len(hits), dtype=torch.bool, device=hits.device)
    while True:
        now = (stays.to(hits.dtype) @ hits) == 0
        if torch.equal(now, stays):
            return stays
        stays = now


def _assign(result: torch.Tensor, hits: torch.Tensor, keeper: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Writes down the best keeper that hits each box; returns which boxes none hits."""
    if not len(boxes):
        return torch.zeros(0, dtype=torch.bool, device=boxes.device)
    rank = torch.arange(len(keeper), 0, -1, dtype=hits.dtype, device=hits.device)
    best = hits.mul_(rank[:, None]).amax(0)  # many times faster than argmax
    is_hit = best > 0
    result[boxes[is_hit]] = keeper[len(keeper) - best[is_hit].long()]
    return ~is_hit


def _overlaps(a: torch.Tensor, b: torch.Tensor, offset: int) -> torch.Tensor:
    """Intersection over union, (A, B); every step rounds as in mmcv's kernel."""
    a, b = a.T.contiguous(), b.T.contiguous()
    width, height = (
        torch.minimum(a[i + 2, :, None], b[i + 2]).sub_(torch.maximum(a[i, :, None], b[i])) for i in range(2))
    if offset:
        width, height = width.add_(offset), height.add_(offset)
    both = width.clamp_(min=0).mul_(height.clamp_(min=0))
    area_a, area_b = ((x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b))
    return both.div_((area_a[:, None] + area_b).sub_(both))
