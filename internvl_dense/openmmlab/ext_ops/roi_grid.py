"""Where RoIAlign takes its samples, and which pixels of the map they touch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch

from internvl_dense.openmmlab.ext_ops.computing import PIECE_BYTES, single

PIXEL_BYTES = 64  # of a row, its share and the temporaries they are made of
Pixels = tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Pooling:
    """What a RoIAlign layer is asked for; see `roi_align_forward`."""

    height: int
    width: int
    spatial_scale: float
    sampling_ratio: int
    aligned: bool


@dataclasses.dataclass(frozen=True)
class Axis:
    """Samples of some regions along one axis.

    Attributes:
        positions: (K, bins, samples), in pixels of the map.
        exists: Of the same shape; regions with fewer samples than others are padded.
        grid: (K,), samples of a bin, at least 1.
        size: Pixels of the map.
        dense: Whether neighbouring samples are at most a pixel apart.
    """

    positions: torch.Tensor
    exists: torch.Tensor
    grid: torch.Tensor
    size: int
    dense: bool


@dataclasses.dataclass(frozen=True)
class RoiPiece:
    """Some regions: their places among all, the image of each, their samples."""

    which: torch.Tensor
    image: torch.Tensor
    y: Axis
    x: Axis


def grid_pieces(
    rois: torch.Tensor, shape: Sequence[int], pooling: Pooling, bytes_for_a_sample: int
) -> Iterator[RoiPiece]:
    """All regions in pieces of bounded memory, those with few samples first.

    Args:
        rois: (K, 5), in the precision to compute in.
        shape: Of the map, (B, C, H, W).
        pooling: The layer.
        bytes_for_a_sample: What the caller makes of each sample, beside its pixels.
    """
    _check_images(rois, shape[0])
    corners = rois[:, 1:] * single(pooling.spatial_scale) - (0.5 if pooling.aligned else 0.0)
    lengths = corners[:, 2:] - corners[:, :2]
    if not pooling.aligned:
        lengths = lengths.clamp(min=1)
    ratio, bins, sizes = pooling.sampling_ratio, (pooling.width, pooling.height), (shape[3], shape[2])
    grids = [_grid(lengths[:, i], bins[i], ratio) for i in range(2)]
    counts = torch.stack([grids[i].clamp(1, max(ratio, _most_inside(sizes[i]))) for i in range(2)])
    order = counts.amax(0).argsort(stable=True)
    for start, stop in _cuts(counts[:, order].tolist(), pooling, bytes_for_a_sample):
        which = order[start:stop]
        most = counts[:, which].amax(1).tolist()
        x, y = (_axis(corners[which, i], lengths[which, i], grids[i][which], most[i], bins[i], sizes[i], ratio < 1)
                for i in range(2))
        yield RoiPiece(which, rois[which, 0].long(), y, x)


def _check_images(rois: torch.Tensor, batch: int) -> None:
    outside = (rois[:, 0] <= -1) | (rois[:, 0] >= batch)
    if outside.any():
        raise IndexError(f'A region names image {rois[outside][0, 0].item():g} of a batch of {batch}.')


def _grid(length: torch.Tensor, bins: int, ratio: int) -> torch.Tensor:
    """Samples of a bin; 0 for regions without extent. float32 as in mmcv, whatever the boxes are."""
    if ratio > 0:
        return torch.full_like(length, ratio, dtype=torch.long)
    return (length / bins).float().ceil().nan_to_num(0).clamp(0, 2**31).long()


def _most_inside(size: int) -> int:
    """Samples that can fall on a map of this size, with room on both sides; of more than that a window is looked at.

    The adaptive grid never steps by less than half a pixel.
    """
    return 2 * size + 8


def _cuts(counts: list[list[int]], pooling: Pooling, bytes_for_a_sample: int) -> Iterator[tuple[int, int]]:
    """Bounds of pieces: within the memory, and with similar sample counts, for all are padded to the most."""
    start, cost = 0, 0
    bins, dense = pooling.height * pooling.width, pooling.sampling_ratio < 1
    for stop, (x, y) in enumerate(zip(*counts, strict=True)):
        pixels = _taps(x, dense) * _taps(y, dense) if not bytes_for_a_sample else 4 * x * y
        cost = max(cost, bins * (pixels * PIXEL_BYTES + x * y * bytes_for_a_sample))
        first = max(counts[0][start], counts[1][start])
        if stop > start and (cost * (stop - start + 1) > PIECE_BYTES or max(x, y) > 1.5 * first + 1):
            yield start, stop
            start, cost = stop, 0
    if counts[0]:
        yield start, len(counts[0])


def _axis(
    start: torch.Tensor, length: torch.Tensor, grid: torch.Tensor, samples: int, bins: int, size: int, dense: bool
) -> Axis:
    bin_length = (length / bins)[:, None, None]
    divisor = grid.clamp(min=1)
    begin = start[:, None, None] + torch.arange(bins, device=start.device)[:, None] * bin_length
    number = torch.arange(samples, device=start.device)
    if dense:
        before = ((-1 - begin) / bin_length * divisor[:, None, None] - 2).nan_to_num(0, 0, 0).clamp(min=0)
        number = number + torch.minimum(before.long(), (grid - samples).clamp(min=0)[:, None, None])
    positions = begin + (number + 0.5) * bin_length / divisor[:, None, None]
    return Axis(positions, (number < grid[:, None, None]).expand_as(positions), divisor, size, dense)


def point_pixels(y: torch.Tensor, x: torch.Tensor, plane: torch.Tensor, height: int, width: int) -> Pixels:
    """The four pixels of each sample and their shares; rows count on from plane to plane."""
    (row, part_y), (column, part_x) = _neighbours(y, height), _neighbours(x, width)
    rows = (plane[..., None, None] * height + row[..., :, None]) * width + column[..., None, :]
    return rows.flatten(-2), (part_y[..., :, None] * part_x[..., None, :]).flatten(-2)


def bin_pixels(piece: RoiPiece, pooling: Pooling) -> Pixels:
    """The pixels of each bin and their shares in its mean, both (K, h, w, pixels)."""
    (row, part_y), (column, part_x) = _bin_taps(piece.y), _bin_taps(piece.x)
    image = piece.image[:, None, None, None, None]
    rows = (image * piece.y.size + row[:, :, None, :, None]) * piece.x.size + column[:, None, :, None, :]
    return rows.flatten(3), (part_y[:, :, None, :, None] * part_x[:, None, :, None, :]).flatten(3)


def _bin_taps(axis: Axis) -> Pixels:
    """Pixels along one axis and their shares in the mean over the samples of a bin, both (K, bins, taps)."""
    samples = axis.positions.shape[2]
    if _taps(samples, axis.dense) < 2 * samples:
        return _merged_taps(axis)
    pixels, shares = _neighbours(axis.positions, axis.size)
    shares = torch.where(axis.exists[..., None], shares, 0) / axis.grid[:, None, None, None]
    return pixels.flatten(2), shares.flatten(2)


def _taps(samples: int, dense: bool) -> int:
    """Two pixels for each sample, or the pixels that a run of dense samples can touch."""
    return min(2 * samples, samples + 2) if dense else 2 * samples


def _merged_taps(axis: Axis) -> Pixels:
    """Each pixel of a bin once: its share is a sum over the samples next to it."""
    inside = axis.exists & _is_inside(axis.positions, axis.size)
    positions = torch.where(inside, axis.positions, 0).clamp(0, axis.size - 1)
    first = torch.where(inside, positions, axis.size - 1).amin(2).floor()
    pixels = first[..., None] + torch.arange(axis.positions.shape[2] + 2, device=positions.device)
    near = (1 - (positions[..., None] - pixels[:, :, None]).abs()).clamp(min=0)
    shares = torch.where(inside[..., None], near, 0).sum(2) / axis.grid[:, None, None]
    return pixels.clamp(max=axis.size - 1).long(), shares


def _neighbours(positions: torch.Tensor, size: int) -> Pixels:
    """The two pixels around each position and their shares, with a last axis of 2."""
    inside = _is_inside(positions, size)
    clamped = torch.where(inside, positions, 0).clamp(0, size - 1)
    low = clamped.floor()
    pixels = torch.stack([low, (low + 1).clamp(max=size - 1)], -1).long()
    part = clamped - low
    return pixels, torch.where(inside[..., None], torch.stack([1 - part, part], -1), 0)


def _is_inside(positions: torch.Tensor, size: int) -> torch.Tensor:
    return (positions >= -1) & (positions <= size)
