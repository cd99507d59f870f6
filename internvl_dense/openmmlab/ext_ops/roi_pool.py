"""RoIPool (Girshick, Fast R-CNN, 2015) as mmcv's CUDA kernel defines it; mmcv has no CPU kernel for it."""

from __future__ import annotations

import torch

from internvl_dense.openmmlab.ext_ops.computing import PIECE_BYTES, operator, single, widened

NOTHING = -1


@operator
def roi_pool_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    argmax: torch.Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fills `output` with the largest pixel of each bin, 0 where a bin holds none.

    A region without area is 0 and takes no gradient; mmcv's kernel leaves the position of its maximum at the first
    pixel, which then gets a gradient.

    Args:
        input: (B, C, H, W).
        rois: (K, 5): image of the batch, x1 y1 x2 y2 in pixels of the picture, the last ones included.
        output: (K, C, pooled_height, pooled_width), filled.
        argmax: int32, of the same shape, filled with row * W + column of the maximum, -1 for an empty bin.
        pooled_height, pooled_width: Bins of a region; they overlap where they share a pixel.
        spatial_scale: Pixels of the map in one pixel of the picture.
    """
    rois = widened(rois)
    scale = single(spatial_scale)
    first, last = rois[:, 1:3] * scale, (rois[:, 3:5] + 1) * scale
    columns = _bounds(first[:, 0], last[:, 0], pooled_width, input.shape[3])
    rows = _bounds(first[:, 1], last[:, 1], pooled_height, input.shape[2])
    is_flat = (last <= first).any(1)
    table = widened(input).permute(0, 2, 3, 1).flatten(0, 2)
    for which in _pieces(rows, columns, table):
        pixels, exists = _pixels(rows[:, which], columns[:, which], input.shape[3])
        exists &= ~is_flat[which, None, None]
        image = rois[which, 0].long()[:, None, None] * input[0, 0].numel()
        values = table[image + pixels].masked_fill_(~exists[..., None], -torch.inf)  # (k, bins, pixels, C)
        best, at = values.max(2)
        place, empty = pixels.gather(2, at), ~exists.any(2)[..., None]
        output[which] = _as_maps(best.masked_fill_(empty, 0), output)
        argmax[which] = _as_maps(place.masked_fill_(empty, NOTHING), argmax)


@operator
def roi_pool_backward(
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    argmax: torch.Tensor,
    grad_input: torch.Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Adds to `grad_input` (B, C, H, W) what flows back to the largest pixels; arguments as in `roi_pool_forward`."""
    channels, pixels = grad_input.shape[1], grad_input[0, 0].numel()
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    exists = argmax != NOTHING
    target = plane[:, :, None, None] * pixels + argmax.clamp(min=0)
    total = torch.zeros_like(widened(grad_input)).flatten()
    total.index_add_(0, target.flatten(), torch.where(exists, widened(grad_output), 0).flatten())
    grad_input += total.view(grad_input.shape)


def _bounds(first: torch.Tensor, last: torch.Tensor, bins: int, size: int) -> torch.Tensor:
    """First pixel of each bin and the one after its last, (2, K, bins); rounded in float32 as by the kernel."""
    edges = torch.arange(bins + 1, device=first.device)
    length = ((last - first) / bins)[:, None]
    begin = (edges[:-1] * length + first[:, None]).float().floor()
    end = (edges[1:] * length + first[:, None]).float().ceil()
    return torch.stack([begin, end]).nan_to_num(0).clamp(0, size).long()


def _pieces(rows: torch.Tensor, columns: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Regions in pieces of bounded memory."""
    count, bins = rows.shape[1], rows.shape[2] * columns.shape[2]
    if not count:
        return ()
    most = int((rows[1] - rows[0]).amax().clamp(min=1) * (columns[1] - columns[0]).amax().clamp(min=1))
    cost = bins * most * (table.shape[1] * table.element_size() + 32)
    return torch.arange(count, device=rows.device).split(max(1, PIECE_BYTES // cost))


def _as_maps(bins: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """(k, h * w, C) to (k, C, h, w)."""
    return bins.transpose(1, 2).unflatten(2, output.shape[2:]).to(output.dtype)


def _pixels(rows: torch.Tensor, columns: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of each bin, row by row, and which of them exist, both (K, bins, pixels)."""
    row, has_row = _run(rows)
    column, has_column = _run(columns)
    pixels = row[:, :, None, :, None] * width + column[:, None, :, None, :]
    exists = has_row[:, :, None, :, None] & has_column[:, None, :, None, :]
    return pixels.flatten(3).flatten(1, 2), exists.flatten(3).flatten(1, 2)


def _run(bounds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    begin, end = bounds[0, :, :, None], bounds[1, :, :, None]
    places = begin + torch.arange(int((end - begin).amax().clamp(min=1)), device=bounds.device)
    exists = places < end
    return torch.where(exists, places, 0), exists
