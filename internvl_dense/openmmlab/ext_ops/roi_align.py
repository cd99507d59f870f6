"""RoIAlign, average and maximum, over a grid of bilinear samples (He et al., Mask R-CNN, 2017)."""

from __future__ import annotations

import torch

from internvl_dense.openmmlab.ext_ops import torchvision_kernels
from internvl_dense.openmmlab.ext_ops.computing import operator, widened
from internvl_dense.openmmlab.ext_ops.roi_grid import Pooling, RoiPiece, bin_pixels, grid_pieces, point_pixels
from internvl_dense.openmmlab.ext_ops.weighted_rows import gather_rows, scatter_rows

MAX = 0  # mmcv's pool_mode; 1 is the average
NOTHING = -1  # stands for the position of the maximum of a bin without a sample


@operator
def roi_align_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fills `output` with one value for each bin of each region.

    A sample more than a pixel outside the map counts as 0, one up to a pixel outside as its border. A bin without
    samples (an aligned region of size 0 with the adaptive grid) is 0; for the maximum mmcv has -10000 on a CPU and
    the lowest float on CUDA there. An aligned region of negative size is read backwards as by mmcv's CUDA kernel; its
    CPU kernel refuses it.

    Args:
        input: (B, C, H, W).
        rois: (K, 5): image of the batch, x1 y1 x2 y2 in pixels of the picture.
        output: (K, C, aligned_height, aligned_width), filled.
        argmax_y, argmax_x: Of the shape of `output` for the maximum, filled with the sample it came from, in pixels of
            the map, -1 where there was none. Widened where they are narrower than float32, which holds any position.
        spatial_scale: Pixels of the map in one pixel of the picture.
        sampling_ratio: Samples of a bin along each axis; 0 means one for each pixel begun.
        pool_mode: 0 for the maximum, 1 for the average.
        aligned: Whether pixels are squares around their coordinates; if not, regions are at least one pixel wide.

    Raises:
        IndexError: A region names an image that is not there.
    """
    pooling = Pooling(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    if pool_mode == MAX:
        argmax_y.data, argmax_x.data = widened(argmax_y), widened(argmax_x)
        _forward_max(input, rois, output, argmax_y, argmax_x, pooling)
    elif torchvision_kernels.fit_roi_align(input, rois):
        output.copy_(torchvision_kernels.roi_align(input, rois, pooling))
    else:
        _forward_mean(input, rois, output, pooling)


@operator
def roi_align_backward(
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    grad_input: torch.Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Adds to `grad_input` (B, C, H, W) what flows back from the bins; arguments as in `roi_align_forward`."""
    pooling = Pooling(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    if pool_mode == MAX:
        grad_input += _backward_max(grad_output, rois, argmax_y, argmax_x, grad_input.shape)
    elif torchvision_kernels.fit_roi_align(grad_output, rois):
        grad_input += torchvision_kernels.roi_align_backward(grad_output, rois, grad_input.shape, pooling)
    else:
        grad_input += _backward_mean(grad_output, rois, grad_input.shape, pooling)


def _forward_mean(input: torch.Tensor, rois: torch.Tensor, output: torch.Tensor, pooling: Pooling) -> None:
    table = _as_rows(widened(input))
    for piece in grid_pieces(widened(rois).to(table.dtype), input.shape, pooling, bytes_for_a_sample=0):
        rows, shares = bin_pixels(piece, pooling)
        bins = gather_rows(table, rows.flatten(0, 2), shares.flatten(0, 2))
        output[piece.which] = _as_maps(bins, output).to(output.dtype)


def _backward_mean(
    grad_output: torch.Tensor, rois: torch.Tensor, shape: torch.Size, pooling: Pooling
) -> torch.Tensor:
    grad = widened(grad_output)
    total = grad.new_zeros(shape[0] * shape[2] * shape[3], shape[1])
    for piece in grid_pieces(widened(rois).to(grad.dtype), shape, pooling, bytes_for_a_sample=0):
        rows, shares = bin_pixels(piece, pooling)
        bins = grad[piece.which].permute(0, 2, 3, 1).flatten(0, 2).contiguous()
        total += scatter_rows(bins, rows.flatten(0, 2), shares.flatten(0, 2), len(total))
    return total.unflatten(0, (shape[0], shape[2], shape[3])).permute(0, 3, 1, 2)


def _forward_max(
    input: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    pooling: Pooling,
) -> None:
    table = _as_rows(widened(input))
    row_bytes = table.element_size() * table.shape[1]
    for piece in grid_pieces(widened(rois).to(table.dtype), input.shape, pooling, bytes_for_a_sample=row_bytes):
        best, y, x = _largest_samples(table, piece, output.shape[1:])
        output[piece.which] = best.to(output.dtype)
        argmax_y[piece.which], argmax_x[piece.which] = y.to(argmax_y.dtype), x.to(argmax_x.dtype)


def _largest_samples(
    table: torch.Tensor, piece: RoiPiece, shape: torch.Size
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Value and position of the first largest sample of each bin, each (K, C, h, w)."""
    y, x = piece.y.positions[:, :, None, :, None], piece.x.positions[:, None, :, None, :]  # (K, h, w, samples)
    y, x = torch.broadcast_tensors(y, x)
    exists = (piece.y.exists[:, :, None, :, None] & piece.x.exists[:, None, :, None, :]).flatten(3)
    rows, shares = point_pixels(y, x, piece.image[:, None, None, None, None], piece.y.size, piece.x.size)
    values = gather_rows(table, rows.flatten(0, -2), shares.flatten(0, -2)).unflatten(0, exists.shape)
    best, which = values.masked_fill_(~exists[..., None], -torch.inf).max(3)  # (K, h, w, C)
    empty = ~exists.any(3)[..., None]
    at_y, at_x = (axis.flatten(3).gather(3, which).masked_fill(empty, NOTHING) for axis in (y, x))
    best, at_y, at_x = (part.permute(0, 3, 1, 2) for part in (best.masked_fill(empty, 0), at_y, at_x))
    return best, at_y, at_x


def _backward_max(
    grad_output: torch.Tensor, rois: torch.Tensor, y: torch.Tensor, x: torch.Tensor, shape: torch.Size
) -> torch.Tensor:
    grad = widened(grad_output)
    _, channels, height, width = shape
    image = rois[:, 0].long()[:, None, None, None]
    plane = image * channels + torch.arange(channels, device=rois.device)[:, None, None]
    rows, shares = point_pixels(y.to(grad.dtype), x.to(grad.dtype), plane, height, width)
    parts = torch.where((y != NOTHING)[..., None], shares * grad[..., None], 0)
    return grad.new_zeros(shape.numel()).index_add_(0, rows.flatten(), parts.flatten()).view(shape)


def _as_rows(map_BCHW: torch.Tensor) -> torch.Tensor:
    return map_BCHW.permute(0, 2, 3, 1).flatten(0, 2).contiguous()


def _as_maps(bins: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """(K * h * w, C) to (K, C, h, w)."""
    return bins.unflatten(0, (-1, *output.shape[2:])).permute(0, 3, 1, 2)
