"""Bilinear samples of a map that is zero outside, as rows and weights."""

from __future__ import annotations

import torch

Size = int | torch.Tensor


def corners(
    y: torch.Tensor, x: torch.Tensor, height: Size, width: Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """The four pixels around each point and their shares.

    A point that is a whole pixel or more outside (y <= -1, y >= height, likewise x) has no share and no gradient. At a
    whole coordinate the gradient is the one towards the next pixel. Both are conventions of deformable convolution,
    which meets such points in its first step, where all offsets are zero; `grid_sample` rounds them to either side.

    Args:
        y, x: Of any equal shape, in pixels, 0 in the middle of the first pixel.
        height, width: In pixels; tensors broadcast against `y`.

    Returns:
        Row `row * width + column` inside the map, int64, and the share of it, both with a last axis of 4.
    """
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = torch.where(inside, y, 0), torch.where(inside, x, 0)
    top, left = y.detach().floor(), x.detach().floor()
    down, right = y - top, x - left
    rows, shares = [], []
    for row, part_y in ((top, 1 - down), (top + 1, down)):
        for column, part_x in ((left, 1 - right), (left + 1, right)):
            exists = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            shares.append(torch.where(exists, part_y * part_x, 0))
            rows.append(torch.where(exists, row * width + column, 0).long())
    return torch.stack(rows, -1), torch.stack(shares, -1)
