"""Grids of cells over one image: where their centres lie, and maps brought from one grid to another.

Grids begin at the top left corner of the image. The last cells of one may reach beyond the image, each grid by another
length, so places are told in pixels of the image and never as shares of a side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch


@dataclasses.dataclass(frozen=True)
class Grid:
    """Cells of `step` x `step` pixels; the centre of cell i of a side is (i + 0.5) * step pixels from the corner.

    Args:
        height: Cells from top to bottom.
        width: Cells from left to right.
        step: Side of a cell in pixels.
    """

    height: int
    width: int
    step: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in cells."""
        return self.height, self.width

    @property
    def num_cells(self) -> int:
        """Number of cells, and of tokens."""
        return self.height * self.width


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Where queries stand on the maps that they read.

    Args:
        references: (1 or B, Lq, V or 1, 2), (x, y) of each query in units of each map: 0 is its one edge, 1 the other.
        shapes: Height and width of each of the V maps in cells.
        sizes: (V, 2), width and height of each map in cells, as a tensor.
    """

    references: torch.Tensor
    shapes: tuple[tuple[int, int], ...]
    sizes: torch.Tensor


def sampling(queries: Sequence[Grid], maps: Sequence[Grid], device: torch.device, dtype: torch.dtype) -> Sampling:
    """The centres of all cells of the `queries`, one grid after another, seen from each of the `maps`."""
    pixels = torch.cat([_centres(grid, device, dtype) for grid in queries])
    sizes = torch.tensor([(grid.width, grid.height) for grid in maps], device=device, dtype=dtype)
    steps = torch.tensor([grid.step for grid in maps], device=device, dtype=dtype)
    references = pixels[:, None] / (sizes * steps[:, None])
    return Sampling(references[None], tuple(grid.shape for grid in maps), sizes)


def resample(map_BChw: torch.Tensor, source: Grid, target: Grid) -> torch.Tensor:
    """Bilinear values of a map at the centres of another grid; beyond the outermost centres the edge goes on.

    Between grids that cover the same pixels it is `interpolate(mode='bilinear', align_corners=False)`.

    Args:
        map_BChw: On the grid `source`.
        source: Its grid.
        target: The wanted one.
    """
    if source == target:
        return map_BChw
    rows = _hats(source.height, source.step, target.height, target.step, map_BChw)
    columns = _hats(source.width, source.step, target.width, target.step, map_BChw)
    return rows @ (map_BChw @ columns.T)


def _centres(grid: Grid, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(h * w, 2): (x, y) of every cell in pixels, row-major."""
    y, x = (((torch.arange(side, device=device, dtype=dtype) + 0.5) * grid.step) for side in grid.shape)
    return torch.stack(torch.meshgrid(y, x, indexing='ij')[::-1], dim=-1).flatten(0, 1)


def _hats(count: int, step: int, wanted: int, wanted_step: int, like: torch.Tensor) -> torch.Tensor:
    """(wanted, count): the share of each cell of a side in each wanted one."""
    precision = torch.promote_types(like.dtype, torch.float32)
    places = (torch.arange(wanted, device=like.device, dtype=precision) + 0.5) * (wanted_step / step) - 0.5
    cells = torch.arange(count, device=like.device, dtype=precision)
    return (1 - (places.clamp(0, count - 1)[:, None] - cells).abs()).clamp_min(0).to(like.dtype)
