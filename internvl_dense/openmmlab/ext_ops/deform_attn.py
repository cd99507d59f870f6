"""Multi-scale deformable attention (Zhu et al., Deformable DETR, 2021).

On a CPU and in bfloat16 mmcv's layer does not call these but its own `grid_sample` version; on CUDA it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from internvl_dense.openmmlab.ext_ops.bilinear import corners
from internvl_dense.openmmlab.ext_ops.computing import operator, pieces, widened
from internvl_dense.openmmlab.ext_ops.weighted_rows import weighted_rows

POINT_BYTES = 200  # of a sampling point's four pixels, their shares and the temporaries they are made of
Part = tuple[int, slice]


@operator
def ms_deform_attn_forward(
    value: torch.Tensor,
    spatial_shapes: torch.Tensor,
    level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    im2col_step: int,
) -> torch.Tensor:
    """Weighted sum of bilinear samples from maps of several sizes.

    Args:
        value: (B, N, M, D): the pixels of all maps one after the other, for M heads of D channels.
        spatial_shapes: (L, 2), int64, height and width of each map.
        level_start_index: (L,), int64, where each map begins in N.
        sampling_locations: (B, Q, M, L, P, 2), x and y; 0 and 1 are the outer edges of the map. Zero outside.
        attention_weights: (B, Q, M, L, P).
        im2col_step: Not used: memory is bounded in another way.

    Returns:
        (B, Q, M * D).
    """
    batch, queries, heads = sampling_locations.shape[:3]
    result = value.new_zeros(batch, queries, heads * value.shape[3])
    for image, part in _parts(sampling_locations):
        result[image, part] = _attend(
            widened(value[image]), spatial_shapes, level_start_index,
            widened(sampling_locations[image, part]), widened(attention_weights[image, part])).to(result.dtype)
    return result


@operator
def ms_deform_attn_backward(
    value: torch.Tensor,
    spatial_shapes: torch.Tensor,
    level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    grad_output: torch.Tensor,
    grad_value: torch.Tensor,
    grad_sampling_loc: torch.Tensor,
    grad_attn_weight: torch.Tensor,
    im2col_step: int,
) -> None:
    """Adds to the last three tensors, each shaped like what it is the gradient of; see `ms_deform_attn_forward`."""
    for image in range(len(value)):
        total = torch.zeros_like(widened(value[image]))
        for _, part in _parts(sampling_locations[image:image + 1]):
            leaves = [widened(x).detach().clone().requires_grad_()
                      for x in (value[image], sampling_locations[image, part], attention_weights[image, part])]
            with torch.enable_grad():
                result = _attend(leaves[0], spatial_shapes, level_start_index, leaves[1], leaves[2])
            of_value, of_locations, of_weights = torch.autograd.grad(
                result, leaves, widened(grad_output[image, part]))
            total += of_value
            grad_sampling_loc[image, part] += of_locations.to(grad_sampling_loc.dtype)
            grad_attn_weight[image, part] += of_weights.to(grad_attn_weight.dtype)
        grad_value[image] += total.to(grad_value.dtype)


def _parts(locations: torch.Tensor) -> Iterator[Part]:
    """Image by image, its queries in pieces of bounded memory."""
    starts = pieces(locations.shape[1], math.prod(locations.shape[2:5]) * POINT_BYTES)
    for image in range(len(locations)):
        for start in starts:
            yield image, slice(start, start + starts.step)


def _attend(
    value: torch.Tensor, shapes: torch.Tensor, starts: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """One image: (N, M, D), (Q, M, L, P, 2) and (Q, M, L, P) to (Q, M * D). A row of the table is a pixel of a head."""
    heads = value.shape[1]
    height, width = shapes[:, 0, None], shapes[:, 1, None]  # (L, 1), against (Q, M, L, P)
    x, y = locations[..., 0] * width - 0.5, locations[..., 1] * height - 0.5
    pixels, shares = corners(y, x, height, width)
    rows = (pixels + starts[:, None, None]) * heads + torch.arange(heads, device=value.device)[:, None, None, None]
    shares = shares * weights[..., None]
    sums = weighted_rows(value.flatten(0, 1), rows.flatten(2).flatten(0, 1), shares.flatten(2).flatten(0, 1))
    return sums.view(len(locations), -1)
