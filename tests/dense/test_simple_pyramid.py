"""ViTDet's simple pyramid: sizes, strides, norms and gradients."""

from __future__ import annotations

import pytest
import torch

from internvl_dense.dense.simple_pyramid import SimpleFeaturePyramid

STRIDES = [4.0, 8.0, 16.0, 32.0]


@pytest.fixture
def pyramid():
    torch.manual_seed(0)
    module = SimpleFeaturePyramid([8, 16], out_channels=4, num_outs=6)
    module.init_weights()
    return module


@pytest.mark.parametrize('grid', [(6, 4), (5, 7), (2, 2)])
def test_levels_follow_the_last_map(pyramid, grid):
    h, w = grid
    maps = [torch.full((2, 8, h, w), torch.nan), torch.randn(2, 16, h, w)]  # the first map is not read
    levels = pyramid(maps)
    halves = [(h // 2, w // 2)]
    while len(halves) < 3:
        halves.append((-(-halves[-1][0] // 2), -(-halves[-1][1] // 2)))
    assert [tuple(level.shape) for level in levels] == [
        (2, 4, 4 * h, 4 * w), (2, 4, 2 * h, 2 * w), (2, 4, h, w), *((2, 4, *size) for size in halves)]
    assert all(level.isfinite().all() for level in levels)


def test_strides_are_quarter_half_one_and_two_patches():
    assert SimpleFeaturePyramid.output_strides([16]) == STRIDES
    assert SimpleFeaturePyramid.output_strides([14, 14]) == [3.5, 7.0, 14.0, 28.0]


def test_every_parameter_learns_and_channels_are_normed(pyramid):
    levels = pyramid([torch.randn(1, 16, 6, 6)])
    torch.manual_seed(1)
    sum((level * torch.randn_like(level)).sum() for level in levels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pyramid.parameters())
    assert levels[2].mean(1).abs().max() < 1e-5  # fresh norms centre the channels of each cell
