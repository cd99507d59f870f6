"""Resampling of position embeddings and patch kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_dense.backbones.position import class_slots, resize_patch_kernel, resize_position, square_side
from internvl_dense.errors import UserError


def positions(side: int, num_prefix: int, channels: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randn(1, num_prefix + side * side, channels, generator=generator).to(dtype)


@pytest.mark.parametrize('num_prefix', [0, 1, 5])
def test_the_grid_is_row_major_and_bicubic_and_prefixes_stay(num_prefix: int) -> None:
    embed = positions(4, num_prefix)
    resized = resize_position(embed, num_prefix, (3, 6))
    assert resized.shape == (1, num_prefix + 18, 3)
    assert torch.equal(resized[:, :num_prefix], embed[:, :num_prefix])
    rows = embed[0, num_prefix:].unflatten(0, (4, 4))
    for channel in range(3):
        expected = F.interpolate(rows[None, None, ..., channel], size=(3, 6), mode='bicubic', align_corners=False)
        ours = resized[0, num_prefix:, channel].unflatten(0, (3, 6))
        torch.testing.assert_close(ours, expected[0, 0], atol=1e-6, rtol=0)


def test_height_and_width_are_not_mixed_up() -> None:
    ramp = torch.arange(4.0).repeat(4, 1)  # grows with the column
    resized = resize_position(ramp.reshape(1, 16, 1), 0, (2, 8)).unflatten(1, (2, 8))[0, ..., 0]
    assert torch.equal(resized[0], resized[1])
    assert (resized[0].diff() >= 0).all()


def test_the_same_grid_is_returned_as_it_is() -> None:
    embed = positions(4, 1, dtype=torch.bfloat16)
    assert resize_position(embed, 1, (4, 4)) is embed


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 8), st.sampled_from([0, 1, 3]))
def test_a_constant_embedding_stays_constant(side: int, height: int, width: int, num_prefix: int) -> None:
    embed = torch.full((1, num_prefix + side * side, 2), 1.5)
    resized = resize_position(embed, num_prefix, (height, width))
    torch.testing.assert_close(resized, torch.full((1, num_prefix + height * width, 2), 1.5), atol=1e-5, rtol=0)


def test_half_precision_is_resampled_in_fp32_and_cast_back() -> None:
    embed = positions(4, 1, dtype=torch.bfloat16)
    resized = resize_position(embed, 1, (7, 7))
    assert resized.dtype == torch.bfloat16
    assert torch.equal(resized, resize_position(embed.float(), 1, (7, 7)).bfloat16())
    kernel = torch.randn(4, 3, 14, 14).bfloat16()
    assert torch.equal(resize_patch_kernel(kernel, 16), resize_patch_kernel(kernel.float(), 16).bfloat16())


def test_gradients_pass_through() -> None:
    embed = positions(4, 1).requires_grad_()
    resize_position(embed, 1, (6, 5)).sum().backward()
    assert embed.grad is not None
    assert torch.equal(embed.grad[:, 0], torch.ones(1, 3))
    assert float(embed.grad[:, 1:].sum()) == pytest.approx(3 * 30, rel=1e-5)


def test_a_grid_that_is_not_square_is_refused() -> None:
    with pytest.raises(UserError, match='15 position embeddings do not form a square grid'):
        resize_position(torch.zeros(1, 16, 2), 1, (4, 4))
    assert square_side(256) == 16
    with pytest.raises(UserError, match='257'):
        square_side(257)


def test_patch_kernels_are_resampled_without_scaling() -> None:
    kernel = torch.randn(4, 3, 14, 14)
    assert resize_patch_kernel(kernel, 14) is kernel
    resized = resize_patch_kernel(kernel, 16)
    assert torch.equal(resized, F.interpolate(kernel, size=(16, 16), mode='bicubic', align_corners=False))
    flat = resize_patch_kernel(torch.ones(1, 3, 14, 14), 16)
    torch.testing.assert_close(flat, torch.ones(1, 3, 16, 16), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ('count', 'slots'), [(1, 0), (2, 1), (4, 0), (5, 1), (256, 0), (257, 1), (1024, 0), (1025, 1), (0, None), (3, None),
                         (255, None), (258, None)])
def test_a_stored_grid_tells_whether_a_class_slot_stands_before_it(count: int, slots: int | None) -> None:
    assert class_slots(count) == slots
