"""The convolutional branch: sizes at any input, and no parameter that nobody asked for."""

from __future__ import annotations

import itertools

import pytest
import torch

from internvl_dense.dense.spatial_prior import STRIDES, SpatialPrior


@pytest.mark.parametrize(('height', 'width'), [(64, 64), (65, 97), (31, 33), (1, 200), (100, 63)])
def test_sides_are_rounded_up(height, width):
    maps = SpatialPrior(4, 8)(torch.zeros(2, 3, height, width))
    assert {level: tuple(one.shape) for level, one in maps.items()} == {
        level: (2, 8, -(-height // stride), -(-width // stride)) for level, stride in enumerate(STRIDES)}


@pytest.mark.parametrize('levels', [c for n in range(1, 5) for c in itertools.combinations(range(4), n)])
def test_every_parameter_serves_a_wanted_level(levels):
    part = SpatialPrior(4, 8, levels)
    maps = part(torch.randn(1, 3, 64, 64))
    assert tuple(maps) == levels
    sum(one.square().sum() for one in maps.values()).backward()
    assert all(parameter.grad is not None for parameter in part.parameters())


def test_levels_do_not_depend_on_which_others_are_wanted():
    whole, part = SpatialPrior(4, 8), SpatialPrior(4, 8, (1, 2))
    part.load_state_dict({key: value for key, value in whole.state_dict().items() if key in part.state_dict()})
    image = torch.randn(1, 3, 40, 56)
    for level, one in part(image).items():
        assert torch.equal(one, whole(image)[level])
