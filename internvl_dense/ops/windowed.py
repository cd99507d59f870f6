"""Attention within windows of a grid of tokens, through any kernel of `internvl_dense.ops.attention`.

Suffixes: B batch, H heads, N tokens, D channels of a head, h x w the grid, W windows of one batch entry.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from internvl_dense.ops.attention import AttentionKernel

# 'masked': cells beyond the grid do not exist. 'zeros': as in the published detector, they are keys like any other.
PADDINGS = ('masked', 'zeros')

KeyValue = tuple[torch.Tensor, torch.Tensor]


class Span(NamedTuple):
    """Windows of equal length along one side of the grid: cells start..stop in windows of `length`."""

    start: int
    stop: int
    length: int


def spans(side: int, window: int) -> list[Span]:
    """The whole windows along a side of `side` cells, and the shorter one that is left over, if there is one."""
    whole = side - side % window
    found = [Span(0, whole, window), Span(whole, side, side - whole)]
    return [span for span in found if span.stop > span.start]


def windowed_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, *,
    kernel: AttentionKernel, grid: tuple[int, int], window: int, prefix: int = 0, filler: KeyValue | None = None,
) -> torch.Tensor:
    """Softmax attention of every token of a grid over its window of `window` x `window` cells, from the top left.

    Where the grid is no multiple of the window, the windows at the right and at the bottom are smaller. Windows of one
    size go through the kernel as one batch: at most four calls, without a mask and without a padded token.

    Prefix tokens (class token and registers) lie in no window: every window has all of them as further keys, and their
    own queries attend to all tokens.

    Args:
        q, k, v: (B, H, prefix + h * w, D): prefix tokens, then the grid row by row.
        scale: Factor of the products.
        kernel: Attention without mask, for any number of queries and keys.
        grid: Rows and columns (h, w) of the grid in tokens.
        window: Side of a window in tokens; one that covers the grid gives global attention.
        prefix: Number of prefix tokens.
        filler: Key and value (1, H, 1, D) of a padded cell. Each smaller window then has as many further keys as it
            lacks cells, which is what padding the grid at the right and bottom does where nothing masks it.

    Returns:
        (B, H, prefix + h * w, D), in the order of `q`.
    """
    height, width = grid
    assert q.shape[2] == prefix + height * width, f'{q.shape[2]} tokens, expected {prefix} + {height} x {width}'
    shared = k[:, :, :prefix], v[:, :, :prefix]
    cells = tuple(part[:, :, prefix:].unflatten(2, grid) for part in (q, k, v))
    rows = []
    for down in spans(height, window):
        row = []
        for across in spans(width, window):
            further = _filled_up(shared, filler, window**2 - down.length * across.length)
            windows = [_cut(part, down, across) for part in cells]
            row.append(_join(_attend(windows, further, scale, kernel), down, across))
        rows.append(torch.cat(row, dim=3))
    out_BHND = torch.cat(rows, dim=2).flatten(2, 3)
    if not prefix:
        return out_BHND
    return torch.cat([kernel(q[:, :, :prefix], k, v, scale), out_BHND], dim=2)


def _filled_up(shared: KeyValue, filler: KeyValue | None, count: int) -> KeyValue:
    """Adds `count` times the filler to keys and values (B, H, N, D); softmax asks for no order of keys."""
    if filler is None or not count:
        return shared
    size = (*shared[0].shape[:2], count, -1)
    key, value = (torch.cat([own, one.expand(size)], dim=2) for own, one in zip(shared, filler, strict=True))
    return key, value


def _attend(
    windows: list[torch.Tensor], further: KeyValue, scale: float, kernel: AttentionKernel
) -> torch.Tensor:
    """Windows q, k, v (B, W, H, N, D), each with the `further` keys and values of its batch entry, to the like of q."""
    q, k, v = windows
    if further[0].shape[2]:
        size = (-1, q.shape[1], -1, -1, -1)
        k, v = (torch.cat([more[:, None].expand(size), own], dim=3) for more, own in zip(further, (k, v), strict=True))
    out: torch.Tensor = kernel(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), scale)
    return out.unflatten(0, q.shape[:2])


def _cut(cells: torch.Tensor, down: Span, across: Span) -> torch.Tensor:
    """Cells (B, H, h, w, D) of two spans as windows (B, W, H, N, D)."""
    part = cells[:, :, down.start:down.stop, across.start:across.stop]
    part = part.unflatten(3, (-1, across.length)).unflatten(2, (-1, down.length))
    return part.permute(0, 2, 4, 1, 3, 5, 6).flatten(4, 5).flatten(1, 2)


def _join(windows: torch.Tensor, down: Span, across: Span) -> torch.Tensor:
    """The inverse of `_cut`: windows (B, W, H, N, D) to cells (B, H, h, w, D) of the two spans."""
    part = windows.unflatten(3, (down.length, across.length))
    part = part.unflatten(1, (-1, (across.stop - across.start) // across.length))
    return part.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
