"""Deformable convolution and attention against loops over taps and points, with all gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmcv.ops.deform_conv import deform_conv2d
from mmcv.ops.modulated_deform_conv import modulated_deform_conv2d
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from torch.autograd import gradcheck

from internvl_dense.openmmlab.ext_ops import computing, deform_conv
from tests.openmmlab.ext_ops import references

EQUAL = 1e-12
SHAPES = [(4, 5), (2, 3), (1, 1)]
# stride, padding, dilation, groups, offset groups
LAYERS = [((1, 1), (1, 1), (1, 1), 1, 1), ((2, 1), (0, 2), (1, 2), 2, 1), ((1, 2), (1, 0), (2, 1), 1, 2),
          ((1, 1), (1, 1), (1, 1), 4, 2), ((2, 2), (1, 1), (1, 1), 2, 4)]


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def tensors(layer: tuple, batch: int = 1) -> dict[str, torch.Tensor]:
    """What a layer with a kernel of 3 x 2 takes; offsets reach beyond the border."""
    stride, padding, dilation, groups, parts = layer
    x, weight = leaf(batch, 4, 5, 4), leaf(4, 4 // groups, 3, 2)
    size = F.conv2d(x, weight, None, stride, padding, dilation, groups).shape[2:]
    offset = (torch.randn(batch, parts * 12, *size, dtype=torch.float64) * 2).requires_grad_()
    return dict(input=x, offset=offset, mask=leaf(batch, parts * 6, *size), weight=weight, bias=leaf(4))


def assert_same(ours: torch.Tensor, expected: torch.Tensor, leaves: list[torch.Tensor]) -> None:
    assert (ours - expected).abs().max() < EQUAL
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad(result, leaves, weights) for result in (ours, expected)]
    assert max((a - b).abs().max() for a, b in zip(*gradients, strict=True)) < EQUAL * 10


def assert_pieces_do_not_show(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., torch.Tensor], leaves: list[torch.Tensor]
) -> None:
    """With pieces of one image or query, forth and back, everything is as with a single piece."""
    weights = torch.randn_like(function(*leaves))
    results = []
    for most in (computing.PIECE_BYTES, 1):
        with monkeypatch.context() as patch:
            patch.setattr(computing, 'PIECE_BYTES', most)
            result = function(*leaves)
            results.append([result, *torch.autograd.grad(result, leaves, weights)])
    assert max((a - b).abs().max() for a, b in zip(*results, strict=True)) < EQUAL * 10


@pytest.mark.parametrize('layer', LAYERS)
def test_deform_conv(layer: tuple) -> None:
    t = tensors(layer)
    leaves = [t['input'], t['offset'], t['weight']]
    expected = references.deform_conv(t['input'], t['offset'], None, t['weight'], None, *layer)
    assert_same(deform_conv2d(*leaves, *layer), expected, leaves)


@pytest.mark.parametrize('layer', LAYERS)
def test_modulated_deform_conv(layer: tuple) -> None:
    t = tensors(layer)
    leaves = list(t.values())
    assert_same(modulated_deform_conv2d(*leaves, *layer), references.deform_conv(*leaves, *layer), leaves)


def test_without_offsets_it_is_a_convolution() -> None:
    layer = ((2, 1), (1, 2), (1, 2), 2, 1)
    t = tensors(layer)
    plain = F.conv2d(t['input'], t['weight'], None, *layer[:-1])
    assert (deform_conv2d(t['input'], torch.zeros_like(t['offset']), t['weight'], *layer) - plain).abs().max() < EQUAL


@pytest.mark.parametrize('is_upright', [False, True])
def test_at_whole_coordinates_the_offset_looks_to_the_next_pixel_and_not_at_all_a_pixel_outside(
    is_upright: bool
) -> None:
    x = torch.tensor([[[[1.0, 3.0, 7.0]]]], dtype=torch.float64)
    offset = torch.zeros(1, 2, 1, 5, dtype=torch.float64)
    x, offset = (t.mT.contiguous() if is_upright else t for t in (x, offset))
    offset.requires_grad_()
    result = deform_conv2d(x, offset, torch.ones(1, 1, 1, 1, dtype=torch.float64), 1, (1, 0) if is_upright else (0, 1))
    assert result.flatten().tolist() == [0, 1, 3, 7, 0]
    down, right = torch.autograd.grad(result.sum(), offset)[0].flatten(2)[0]
    along, across = (down, right) if is_upright else (right, down)
    assert along.tolist() == [0, 2, 4, -7, 0]  # 0 at -1 and at 3, which are a whole pixel outside
    assert across.tolist() == [0, -1, -3, -7, 0]


def test_images_in_pieces_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    t = tensors(LAYERS[1], batch=3)
    assert_pieces_do_not_show(
        monkeypatch, lambda *leaves: modulated_deform_conv2d(*leaves, *LAYERS[1]), list(t.values()))
    assert_pieces_do_not_show(
        monkeypatch, lambda *leaves: deform_conv2d(*leaves, *LAYERS[1]), [t['input'], t['offset'], t['weight']])


@pytest.mark.parametrize('layer', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_layers_of_mmcv_train_in_float32_and_bfloat16(layer: type) -> None:
    conv = layer(4, 6, 3, padding=1, deform_groups=2)
    x = torch.randn(2, 4, 5, 5)
    exact = conv(x)
    with torch.autocast('cpu', torch.bfloat16):
        narrow = conv(x)
    assert narrow.dtype == torch.bfloat16 and (narrow - exact).abs().max() < 0.05 * exact.abs().max()
    narrow.float().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in conv.parameters())


def test_autocast_does_not_reach_inside() -> None:
    leaves = [x.detach().float() for x in tensors(LAYERS[0]).values()]
    exact = modulated_deform_conv2d(*leaves, *LAYERS[0])
    with torch.autocast('cpu', torch.bfloat16):
        assert modulated_deform_conv2d(*leaves, *LAYERS[0]).equal(exact)


def attention(batch: int = 2, queries: int = 5) -> tuple[torch.Tensor, ...]:
    """value, shapes, starts, locations (some outside), weights."""
    sizes = [h * w for h, w in SHAPES]
    value = leaf(batch, sum(sizes), 2, 3)
    locations = (torch.rand(batch, queries, 2, 3, 2, 2, dtype=torch.float64) * 1.6 - 0.3).requires_grad_()
    starts = torch.tensor([0, *itertools.accumulate(sizes)][:-1])
    return value, torch.tensor(SHAPES), starts, locations, leaf(batch, queries, 2, 3, 2)


def test_deformable_attention() -> None:
    value, shapes, starts, locations, weights = attention()
    leaves = [value, locations, weights]
    for expected in (references.deform_attn(value, SHAPES, locations, weights),
                     multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)):
        ours = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)
        assert_same(ours, expected, leaves)


def test_queries_in_pieces_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    value, shapes, starts, locations, weights = attention()
    assert_pieces_do_not_show(
        monkeypatch, lambda v, p, w: MultiScaleDeformableAttnFunction.apply(v, shapes, starts, p, w, 64),
        [value, locations, weights])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_narrow_values_are_attended_to_in_float32(dtype: torch.dtype) -> None:
    value, shapes, starts, locations, weights = (
        x.detach().to(dtype) if x.is_floating_point() else x for x in attention())
    ours, exact = (
        MultiScaleDeformableAttnFunction.apply(value.to(d), shapes, starts, locations.to(d), weights.to(d), 64)
        for d in (dtype, torch.float32))
    assert ours.dtype == dtype and ours.equal(exact.to(dtype))


def test_gradients_by_finite_differences() -> None:
    value, shapes, starts, locations, weights = attention(1, 2)
    assert gradcheck(lambda v, p, w: MultiScaleDeformableAttnFunction.apply(v, shapes, starts, p, w, 64),
                     (value, locations, weights))
    t = tensors(LAYERS[2], batch=1)
    assert gradcheck(lambda *leaves: modulated_deform_conv2d(*leaves, *LAYERS[2]), tuple(t.values()), fast_mode=True)


def test_nothing_to_convolve_or_attend_to() -> None:
    output = torch.zeros(0, 4, 5, 5)
    deform_conv.deform_conv_forward(
        torch.zeros(0, 2, 5, 5), torch.zeros(4, 2, 3, 3), torch.zeros(0, 18, 5, 5), output, output, output,
        3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1)  # mmcv's own function refuses an empty batch
    value, shapes, starts, locations, weights = attention()
    result = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations[:, :0], weights[:, :0], 64)
    assert result.shape == (2, 0, 6) and not torch.autograd.grad(result.sum(), value)[0].any()
