"""Deformable attention by PyTorch's grid sampling: any device and dtype, and the reference for all other kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from internvl_dense.ops.deform_attn import DeformKernel, Shapes


def grid_sample_deform_attn(
    value: torch.Tensor, shapes: Shapes, locations: torch.Tensor, weights: torch.Tensor,
) -> torch.Tensor:
    """See `internvl_dense.ops.deform_attn`; one `grid_sample` for each map, in fp32 or, for fp64 values, fp64."""
    precision = torch.promote_types(value.dtype, torch.float32)
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    grids = 2 * locations.to(precision) - 1  # grid_sample counts from -1 to 1
    factors = weights.to(precision)
    maps = value.to(precision).split([height * width for height, width in shapes], dim=1)
    out = grids.new_zeros(batch * heads, channels, queries)
    for level, (tokens, shape) in enumerate(zip(maps, shapes, strict=True)):
        image = tokens.permute(0, 2, 3, 1).reshape(batch * heads, channels, *shape)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        samples = F.grid_sample(image, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
        out = out + (samples * factors[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]).sum(dim=-1)
    return out.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2).to(value.dtype)


KERNEL = DeformKernel('grid_sample', grid_sample_deform_attn, lambda value: None)
