"""RoIAlign and RoIPool against loops over bins and samples, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmcv.ops import roi_align, roi_pool
from torch.autograd import gradcheck

from internvl_dense.openmmlab.ext_ops import roi_grid
from internvl_dense.openmmlab.ext_ops import roi_pool as roi_pool_module
from tests.openmmlab.ext_ops import references

EQUAL = 1e-12
SIZE = (3, 2)
ROIS = torch.tensor([
    [0, 2.3, 1.1, 19.7, 16.2],
    [1, 3, 3, 3, 3],  # a point
    [1, -100, -100, -80, -60],  # beside the picture
    [0, -9, -7, 60, 40],  # around the picture
    [1, 4.2, 5.1, 9.7, 5.3],
    [0, 0, 0, 25, 30],
    [1, 22, 18, 27.5, 25],  # over the last pixel
], dtype=torch.float64)
numbers = st.integers(-40, 120).map(lambda n: n / 4)
regions = st.lists(st.tuples(st.integers(0, 1), numbers, numbers, st.integers(0, 90), st.integers(0, 90)), max_size=5)


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (2, 3, 9, 11)), dtype=torch.float64, requires_grad=True)


def assert_same(ours: torch.Tensor, expected: torch.Tensor, x: torch.Tensor) -> None:
    assert (ours - expected).abs().max() < EQUAL
    weights = torch.randn_like(ours)
    difference = torch.autograd.grad(ours, x, weights)[0] - torch.autograd.grad(expected, x, weights)[0]
    assert difference.abs().max() < EQUAL


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('ratio', [0, 1, 3])
@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_is_the_mean_or_maximum_of_its_samples(mode: str, ratio: int, aligned: bool) -> None:
    x = maps()
    assert_same(roi_align(x, ROIS, SIZE, 0.4, ratio, mode, aligned),
                references.roi_align(x, ROIS, SIZE, 0.4, ratio, aligned, mode), x)


@settings(max_examples=25, deadline=None)
@given(regions, st.sampled_from(['avg', 'max']), st.sampled_from([0, 2]), st.booleans())
@example([(0, 0.0, 0.0, 0, 0), (0, 8.5, 0.0, 10, 1)], 'avg', 0, True)  # a sample on the last edge, but for rounding
def test_roi_align_of_any_regions(rows: list[tuple[float, ...]], mode: str, ratio: int, aligned: bool) -> None:
    rois = torch.tensor([(b, x, y, x + w / 3, y + h / 3) for b, x, y, w, h in rows], dtype=torch.float64).view(-1, 5)
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    difference = roi_align(x, rois, SIZE, 0.5, ratio, mode, aligned) - references.roi_align(
        x, rois, SIZE, 0.5, ratio, aligned, mode)
    assert difference.abs().sum() < EQUAL


def test_memory_in_pieces_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x = maps()
    for mode in ('avg', 'max'):
        whole = roi_align(x, ROIS, SIZE, 0.4, 0, mode)
        weights = torch.randn_like(whole)
        gradient = torch.autograd.grad(whole, x, weights)[0]
        with monkeypatch.context() as patch:
            patch.setattr(roi_grid, 'PIECE_BYTES', 1)
            pieces = roi_align(x, ROIS, SIZE, 0.4, 0, mode)
            assert pieces.equal(whole)
            assert (torch.autograd.grad(pieces, x, weights)[0] - gradient).abs().max() < EQUAL


def test_a_huge_region_costs_no_more_than_the_map_has_pixels() -> None:
    """Its adaptive grid has 10^18 samples, of which 14 x 12 fall on the map."""
    x = torch.ones(1, 1, 6, 5, dtype=torch.float64)
    rois = torch.tensor([[0, -1e9, -1e9, 1e9, 1e9]], dtype=torch.float64)
    inside = roi_align(x, rois, (2, 2), 1.0, 0)
    assert 0 <= inside.max() < 1e-15
    assert roi_align(x, rois, (2, 2), 1.0, 0, 'max').max() == 1


def test_gradient_of_the_mean_by_finite_differences() -> None:
    x = maps(2, 1, 5, 4)
    assert gradcheck(lambda x: roi_align(x, ROIS[[0, 3, 6]], (2, 2), 0.2, 0), x)
    assert gradcheck(lambda x: roi_align(x, ROIS[[0, 3, 6]], (2, 2), 0.2, 2, 'max'), x)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_narrow_maps_are_pooled_in_float32_and_rounded_once(dtype: torch.dtype, mode: str) -> None:
    narrow = torch.randn(1, 4, 6, 300).to(dtype).requires_grad_()  # bfloat16 cannot number 300 columns
    wide = narrow.detach().float().requires_grad_()
    rois = torch.tensor([[0, 255.2, 0.7, 298.9, 5.5], [0, 1.0, 1.0, 40.0, 5.0]])
    ours, exact = (roi_align(x, rois, SIZE, 1.0, 2, mode) for x in (narrow, wide))
    assert ours.dtype == dtype and ours.equal(exact.to(dtype))
    weights = torch.randn_like(exact).to(dtype)
    gradient = torch.autograd.grad(ours, narrow, weights)[0]
    assert gradient.equal(torch.autograd.grad(exact, wide, weights.float())[0].to(dtype))


def test_autocast_does_not_reach_inside() -> None:
    x, rois = torch.randn(2, 3, 9, 11), ROIS.float()
    with torch.autocast('cpu', torch.bfloat16):
        assert roi_align(x, rois, SIZE, 0.4, 0).equal(roi_align(x.clone(), rois, SIZE, 0.4, 0))
        assert roi_align(x, rois, SIZE, 0.4, 0).dtype == torch.float32


def test_regions_of_a_picture_that_is_not_there() -> None:
    for image in (2, -1):
        with pytest.raises(IndexError, match=f'names image {image} of a batch of 2'):
            roi_align(maps(), torch.tensor([[image, 0.0, 0, 4, 4]]), SIZE, 1.0, 0)


@pytest.mark.parametrize('mode', ['avg', 'max', 'pool'])
def test_no_regions(mode: str) -> None:
    x, none = maps(), torch.zeros(0, 5, dtype=torch.float64)
    result = roi_pool(x, none, SIZE) if mode == 'pool' else roi_align(x, none, SIZE, 1.0, 0, mode)
    assert result.shape == (0, 3, *SIZE)
    assert not torch.autograd.grad(result.sum(), x)[0].any()


@pytest.mark.parametrize('scale', [0.4, 1.0])
def test_roi_pool_is_the_maximum_of_each_bin(scale: float) -> None:
    x = maps()
    assert_same(roi_pool(x, ROIS, SIZE, scale), references.roi_pool(x, ROIS, SIZE, scale), x)


def test_roi_pool_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = maps()
    whole = roi_pool(x, ROIS, SIZE, 0.4)
    monkeypatch.setattr(roi_pool_module, 'PIECE_BYTES', 1)
    assert roi_pool(x, ROIS, SIZE, 0.4).equal(whole)


def test_a_region_without_area_gives_nothing_and_takes_no_gradient() -> None:
    x = maps()
    # The second reaches into a pixel.
    rois = torch.tensor([[0, 5.0, 5, 2, 8], [0, 5.5, 3, 4.4, 8]], dtype=torch.float64)
    result = roi_pool(x, rois, SIZE, 1.0)
    assert not result.any() and not torch.autograd.grad(result.sum(), x)[0].any()
