"""Resampling of position embeddings and patch kernels: the only place that knows interpolation.

Both use bicubic interpolation with align_corners=False and no antialiasing, as the published models do.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from internvl_dense.errors import UserError


def square_side(count: int) -> int:
    """Side of the square grid with `count` cells.

    Raises:
        UserError: `count` is not a square number.
    """
    side = math.isqrt(count)
    if side * side != count:
        raise UserError(f'{count} position embeddings do not form a square grid; resample them to a square first')
    return side


def class_slots(count: int) -> int | None:
    """How many of `count` stored position embeddings stand before a square grid: 0, or 1 for a class token.

    No number of at least two is both a square and one more than a square; None if it is neither.
    """
    return next((slots for slots in (0, 1) if count > slots and math.isqrt(count - slots) ** 2 == count - slots), None)


def _bicubic(x_BCHW: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    resized = F.interpolate(x_BCHW.float(), size=size, mode='bicubic', align_corners=False)
    return resized.to(x_BCHW.dtype)


def resize_position(pos_embed: torch.Tensor, num_prefix: int, size: tuple[int, int]) -> torch.Tensor:
    """Resamples the grid part of a position embedding.

    Args:
        pos_embed: (1, P + N, D) with N a square number of row-major cells.
        num_prefix: P, slots before the grid that stay as they are.
        size: Height and width of the wanted grid in patches.

    Returns:
        (1, P + height * width, D) in the dtype of the input; the input itself where nothing changes.

    Raises:
        UserError: The grid part is not square.
    """
    side = square_side(pos_embed.shape[1] - num_prefix)
    if (side, side) == tuple(size):
        return pos_embed
    prefix, grid = pos_embed[:, :num_prefix], pos_embed[:, num_prefix:]
    channels = pos_embed.shape[2]
    grid = grid.reshape(1, side, side, channels).permute(0, 3, 1, 2)
    grid = _bicubic(grid, size).permute(0, 2, 3, 1).reshape(1, size[0] * size[1], channels)
    return torch.cat([prefix, grid], dim=1)


def resize_patch_kernel(weight: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Resamples a patch-embedding kernel (D, 3, p, p) to `patch_size`; values are not rescaled for the new area."""
    if tuple(weight.shape[-2:]) == (patch_size, patch_size):
        return weight
    return _bicubic(weight, (patch_size, patch_size))
