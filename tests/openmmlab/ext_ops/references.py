"""The operators spelled out, one scalar at a time: slow, plain, and written apart from the code they check."""

from __future__ import annotations

import ctypes
import math

import torch

Map = torch.Tensor


def as_single(value: float) -> float:
    """Rounded to float32, as mmcv's operators take numbers and count samples."""
    return ctypes.c_float(value).value


def iou(a: list[float], b: list[float], offset: int) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    both = width * height
    union = sum((x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b)) - both
    return both / union if union else math.nan


def nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, offset: int = 0) -> list[int]:
    order = scores.sort(descending=True)[1].tolist()  # as mmcv ranks equals
    kept: list[int] = []
    for i in order:
        if not any(iou(boxes[j].tolist(), boxes[i].tolist(), offset) > threshold for j in kept):
            kept.append(i)
    return kept


def nms_match(dets: torch.Tensor, threshold: float) -> list[list[int]]:
    groups: list[list[int]] = []
    for i in dets[:, 4].sort(descending=True)[1].tolist():
        for group in groups:
            if iou(dets[group[0]].tolist(), dets[i].tolist(), 0) >= threshold:
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def soft_nms(
    boxes: torch.Tensor, scores: torch.Tensor, threshold: float, sigma: float, least: float, method: str, offset: int
) -> tuple[list[list[float]], list[int]]:
    """Boxes with their lowered scores, and indices. For distinct scores: says nothing on ties."""
    left = {i: scores[i].item() for i in range(len(boxes))}
    dets, kept = [], []
    while left:
        best = max(left, key=lambda i: left[i])
        dets.append([*boxes[best].tolist(), left.pop(best)])
        kept.append(best)
        for i in list(left):
            overlap = iou(boxes[best].tolist(), boxes[i].tolist(), offset)
            if method == 'gaussian':
                left[i] *= math.exp(-overlap**2 / sigma)
            elif overlap >= threshold:
                left[i] *= 0 if method == 'naive' else 1 - overlap
            if left[i] < least:
                del left[i]
    return dets, kept


def sample_clamped(plane: Map, y: float, x: float) -> torch.Tensor:
    """Bilinear; up to a pixel outside the border goes on, from there on 0."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return plane.new_zeros(())
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[top, left] * (1 - (x - left)) + plane[top, right] * (x - left)
    lower = plane[down, left] * (1 - (x - left)) + plane[down, right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


def sample_zero(plane: Map, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Bilinear on a plane that is 0 outside. Not for gradients at whole coordinates, where there are two."""
    height, width = plane.shape
    total = plane.new_zeros(())
    if not (-1 < y < height and -1 < x < width):
        return total + 0 * (y + x)
    top, left = math.floor(y.detach()), math.floor(x.detach())
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                total = total + plane[row, column] * (1 - (y - row).abs()) * (1 - (x - column).abs())
    return total


def roi_align(
    maps: Map, rois: torch.Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool, mode: str
) -> torch.Tensor:
    """(K, C, h, w), differentiable by the maps."""
    scale, shift = as_single(scale), 0.5 if aligned else 0.0
    cells = []
    for roi in rois.tolist():
        x1, y1, x2, y2 = (v * scale - shift for v in roi[1:])
        width, height = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1.0), max(y2 - y1, 1.0))
        step_y, step_x = height / size[0], width / size[1]
        grid_y, grid_x = (ratio, ratio) if ratio > 0 else (math.ceil(as_single(step_y)), math.ceil(as_single(step_x)))
        for plane in maps[int(roi[0])]:
            for i in range(size[0]):
                for j in range(size[1]):
                    # In mmcv's order of operations: one rounding decides whether a sample at the very edge counts.
                    rows = [y1 + i * step_y + (a + 0.5) * step_y / grid_y for a in range(grid_y)]
                    columns = [x1 + j * step_x + (b + 0.5) * step_x / grid_x for b in range(grid_x)]
                    samples = [sample_clamped(plane, y, x) for y in rows for x in columns]
                    stacked = torch.stack(samples or [plane.new_zeros(())])
                    cells.append(stacked.mean() if mode == 'avg' else stacked.max())
    if not cells:
        return maps.new_zeros(0, maps.shape[1], *size)
    return torch.stack(cells).view(len(rois), maps.shape[1], *size)


def roi_pool(maps: Map, rois: torch.Tensor, size: tuple[int, int], scale: float) -> torch.Tensor:
    cells = []
    for roi in rois.tolist():
        x1, y1, x2, y2 = roi[1] * scale, roi[2] * scale, (roi[3] + 1) * scale, (roi[4] + 1) * scale
        for plane in maps[int(roi[0])]:
            for i in range(size[0]):
                for j in range(size[1]):
                    rows = slice(*_bin(y1, y2, i, size[0], plane.shape[0]))
                    columns = slice(*_bin(x1, x2, j, size[1], plane.shape[1]))
                    part = plane[rows, columns]
                    is_flat = x2 <= x1 or y2 <= y1
                    cells.append(plane.new_zeros(()) if is_flat or not part.numel() else part.max())
    return torch.stack(cells).view(len(rois), maps.shape[1], *size)


def _bin(start: float, end: float, number: int, bins: int, size: int) -> tuple[int, int]:
    step = (end - start) / bins
    first, last = math.floor(start + number * step), math.ceil(start + (number + 1) * step)
    return min(max(first, 0), size), min(max(last, 0), size)


def deform_conv(
    input: Map, offset: torch.Tensor, mask: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor | None,
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int, parts: int,
) -> torch.Tensor:
    """One output pixel after the other, differentiable by every tensor."""
    (batch, channels), (out, _, kernel_h, kernel_w) = input.shape[:2], weight.shape
    offset = offset.unflatten(1, (parts, kernel_h, kernel_w, 2))
    factor = None if mask is None else mask.unflatten(1, (parts, kernel_h, kernel_w))
    cells = []
    for b in range(batch):
        for o in range(out):
            group = o // (out // groups)
            for h in range(offset.shape[5]):
                for w in range(offset.shape[6]):
                    total = input.new_zeros(()) if bias is None else bias[o]
                    for c in range(channels // groups):
                        channel = group * (channels // groups) + c
                        part = channel // (channels // parts)
                        for i in range(kernel_h):
                            for j in range(kernel_w):
                                y = h * stride[0] - padding[0] + i * dilation[0] + offset[b, part, i, j, 0, h, w]
                                x = w * stride[1] - padding[1] + j * dilation[1] + offset[b, part, i, j, 1, h, w]
                                value = sample_zero(input[b, channel], y, x) * weight[o, c, i, j]
                                total = total + (value if factor is None else value * factor[b, part, i, j, h, w])
                    cells.append(total)
    return torch.stack(cells).view(batch, out, offset.shape[5], offset.shape[6])


def deform_attn(
    value: torch.Tensor, shapes: list[tuple[int, int]], locations: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    batch, queries, heads, levels, points = weights.shape
    cells = []
    for b in range(batch):
        for q in range(queries):
            for m in range(heads):
                for d in range(value.shape[3]):
                    total, start = value.new_zeros(()), 0
                    for level, (height, width) in enumerate(shapes):
                        plane = value[b, start:start + height * width, m, d].view(height, width)
                        start += height * width
                        for p in range(points):
                            x, y = locations[b, q, m, level, p].unbind()
                            sample = sample_zero(plane, y * height - 0.5, x * width - 0.5)
                            total = total + sample * weights[b, q, m, level, p]
                    cells.append(total)
    return torch.stack(cells).view(batch, queries, heads * value.shape[3])
