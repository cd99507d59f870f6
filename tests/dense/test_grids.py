"""Places on grids of different cells: all of them are told in pixels of the same image."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from internvl_dense.dense.grids import Grid, resample, sampling

CPU = torch.device('cpu')


def grid_over(height: int, width: int, step: int) -> Grid:
    return Grid(-(-height // step), -(-width // step), step)


def ramp(grid: Grid) -> torch.Tensor:
    """A map (1, 2, h, w) that holds the place of each cell in pixels, x and y."""
    x = ((torch.arange(grid.width) + 0.5) * grid.step).expand(grid.height, -1)
    y = ((torch.arange(grid.height) + 0.5) * grid.step)[:, None].expand(-1, grid.width)
    return torch.stack([x, y])[None]


def test_references_are_cell_centres_of_the_same_map():
    found = sampling([Grid(2, 4, 8)], [Grid(2, 4, 8)], CPU, torch.float32)
    assert found.references.shape == (1, 8, 1, 2)
    assert found.references[0, :, 0].tolist() == [[(x + 0.5) / 4, (y + 0.5) / 2] for y in range(2) for x in range(4)]
    assert found.shapes == ((2, 4),) and found.sizes.tolist() == [[4, 2]]


@pytest.mark.parametrize('size', [(100, 75), (128, 96), (61, 33), (14, 14)])
def test_a_query_reads_its_own_place_on_every_map(size):
    """Sampling a map of its own coordinates gives the place of the query, wherever the map covers it."""
    grids = [grid_over(*size, step) for step in (8, 16, 32, 14)]
    for queries, one in itertools.product(grids, grids):
        found = sampling([queries], [one], CPU, torch.float64)
        image = ramp(one).double()
        read = F.grid_sample(image, 2 * found.references - 1, padding_mode='border', align_corners=False)[0, :, :, 0]
        wanted = ramp(queries).flatten(2)[0].double()
        edge = torch.tensor([one.width, one.height])[:, None] * one.step - one.step / 2
        wanted = torch.minimum(wanted.clamp_min(one.step / 2), edge)
        torch.testing.assert_close(read, wanted, atol=1e-9, rtol=0)


@pytest.mark.parametrize(('source', 'step'), [(Grid(6, 4, 16), 4), (Grid(6, 4, 16), 8), (Grid(6, 4, 16), 32)])
def test_over_the_same_pixels_it_is_bilinear_interpolation(source, step):
    target = Grid(source.height * source.step // step, source.width * source.step // step, step)
    image = torch.randn(2, 3, *source.shape)
    expected = F.interpolate(image, size=target.shape, mode='bilinear', align_corners=False)
    torch.testing.assert_close(resample(image, source, target), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize('size', [(100, 75), (61, 33), (20, 200)])
@pytest.mark.parametrize('step', [4, 8, 16, 32])
def test_a_map_keeps_its_places_on_another_grid(size, step):
    source, target = grid_over(*size, 14), grid_over(*size, step)
    found, wanted = resample(ramp(source), source, target), ramp(target)
    edges = torch.tensor([source.width, source.height])[:, None, None] * 14 - 7.0
    torch.testing.assert_close(found, torch.minimum(wanted.clamp_min(7.0), edges), atol=1e-4, rtol=0)


def test_the_same_grid_is_the_same_map():
    image = torch.randn(1, 2, 3, 4)
    assert resample(image, Grid(3, 4, 16), Grid(3, 4, 16)) is image
