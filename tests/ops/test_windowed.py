"""Attention within windows against one explicit mask over all tokens, and against padding spelled out."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_dense.ops.attention import KERNELS, get_attention, usable_kernels
from internvl_dense.ops.eager import eager_attention
from internvl_dense.ops.windowed import spans, windowed_attention

EXACT = {'atol': 1e-12, 'rtol': 1e-12}  # fp64
FP32 = {'atol': 1e-6, 'rtol': 1e-6}
SCALE = 0.3
ON_A_CPU = [name for name in usable_kernels() if KERNELS.get(name).why_not(torch.zeros(1)) is None]
BATCH, HEADS, CHANNELS = 2, 3, 4

Grid = tuple[int, int]
grids = st.tuples(st.integers(1, 9), st.integers(1, 9))
windows = st.integers(1, 10)


def parts(grid: Grid, prefix: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """q, k, v and weights of a loss."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, HEADS, prefix + grid[0] * grid[1], CHANNELS)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for _ in range(4)]


def filler(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    key, value = (torch.randn(1, HEADS, 1, CHANNELS, generator=generator, dtype=dtype) for _ in range(2))
    return key.requires_grad_(), value.requires_grad_()


def window_numbers(grid: Grid, window: int) -> torch.Tensor:
    """Number of the window of each cell, row by row."""
    down, across = torch.arange(grid[0]) // window, torch.arange(grid[1]) // window
    return (1000 * down[:, None] + across).flatten()


def masked_reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grid: Grid, window: int, prefix: int
) -> torch.Tensor:
    """All tokens at once; a cell may see its window and the prefix, a prefix token everything."""
    numbers = window_numbers(grid, window)
    allowed = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool)
    allowed[prefix:, prefix:] = numbers[:, None] == numbers
    scores = (SCALE * q @ k.transpose(2, 3)).masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ v


def padded_reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grid: Grid, window: int, prefix: int,
    fillers: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """The padded grid, cell by cell: keys and values beyond the grid are the filler's."""
    out = q.new_zeros(q.shape)
    out[:, :, :prefix] = eager_attention(q[:, :, :prefix], k, v, SCALE)
    for y in range(grid[0]):
        for x in range(grid[1]):
            top, left = y - y % window, x - x % window
            cells = [(r, c) for r in range(top, top + window) for c in range(left, left + window)]
            inside = [prefix + r * grid[1] + c for r, c in cells if r < grid[0] and c < grid[1]]
            inside += range(prefix)
            missing = len(cells) + prefix - len(inside)
            keys, values = (
                torch.cat([own[:, :, inside], one.expand(BATCH, -1, missing, -1)], dim=2)
                for own, one in zip((k, v), fillers, strict=True)
            )
            cell = slice(prefix + y * grid[1] + x, prefix + y * grid[1] + x + 1)
            out[:, :, cell] = eager_attention(q[:, :, cell], keys, values, SCALE)
    return out


def gradients(out: torch.Tensor, weight: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of a weighted sum; zeros for an input that has no part in it."""
    found = torch.autograd.grad((out * weight).sum(), inputs, allow_unused=True)
    return tuple(torch.zeros_like(one) if grad is None else grad for grad, one in zip(found, inputs, strict=True))


@settings(max_examples=40, deadline=None)
@given(grids, windows, st.integers(0, 3))
def test_equals_an_explicit_mask_with_gradients(grid: Grid, window: int, prefix: int) -> None:
    q, k, v, weight = parts(grid, prefix)
    ours = windowed_attention(q, k, v, SCALE, kernel=eager_attention, grid=grid, window=window, prefix=prefix)
    expected = masked_reference(q, k, v, grid, window, prefix)
    torch.testing.assert_close(ours, expected, **EXACT)
    pairs = zip(gradients(ours, weight, q, k, v), gradients(expected, weight, q, k, v), strict=True)
    for ours_grad, expected_grad in pairs:
        torch.testing.assert_close(ours_grad, expected_grad, **EXACT)


@settings(max_examples=25, deadline=None)
@given(grids, windows, st.integers(0, 2))
def test_filler_equals_padding_spelled_out_with_gradients(grid: Grid, window: int, prefix: int) -> None:
    q, k, v, weight = parts(grid, prefix)
    fillers = filler()
    ours = windowed_attention(
        q, k, v, SCALE, kernel=eager_attention, grid=grid, window=window, prefix=prefix, filler=fillers)
    expected = padded_reference(q, k, v, grid, window, prefix, fillers)
    torch.testing.assert_close(ours, expected, **EXACT)
    inputs = (q, k, v, *fillers)
    for own, other in zip(gradients(ours, weight, *inputs), gradients(expected, weight, *inputs), strict=True):
        torch.testing.assert_close(own, other, **EXACT)


@settings(max_examples=25, deadline=None)
@given(grids, windows)
def test_filler_changes_smaller_windows_and_nothing_else(grid: Grid, window: int) -> None:
    q, k, v, _ = parts(grid, 0)
    masked = windowed_attention(q, k, v, SCALE, kernel=eager_attention, grid=grid, window=window)
    filled = windowed_attention(q, k, v, SCALE, kernel=eager_attention, grid=grid, window=window, filler=filler())
    numbers = window_numbers(grid, window)
    whole = Counter(numbers.tolist())
    smaller = torch.tensor([whole[number] < window**2 for number in numbers.tolist()])
    assert torch.equal(masked[:, :, ~smaller], filled[:, :, ~smaller])
    changed = (masked != filled).any(-1).all(1).all(0)
    assert torch.equal(changed, smaller)


@settings(max_examples=15, deadline=None)
@given(grids, st.integers(0, 2))
def test_a_window_over_the_whole_grid_is_global_attention(grid: Grid, prefix: int) -> None:
    q, k, v, _ = parts(grid, prefix)
    for window in (max(grid), max(grid) + 3):
        ours = windowed_attention(q, k, v, SCALE, kernel=eager_attention, grid=grid, window=window, prefix=prefix)
        torch.testing.assert_close(ours, eager_attention(q, k, v, SCALE), **EXACT)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 60))
def test_spans_cover_a_side_once(side: int, window: int) -> None:
    found = spans(side, window)
    assert [cell for span in found for cell in range(span.start, span.stop)] == list(range(side))
    assert len(found) <= 2
    assert all((span.stop - span.start) % span.length == 0 and span.length <= window for span in found)


@pytest.mark.parametrize(
    ('grid', 'shapes'),
    [
        # 50 x 84 cells of an image of 800 x 1333 px in windows of 16: 3 x 5 whole ones, then the right, the bottom.
        ((50, 84), [(15, 256), (3, 64), (5, 32), (1, 8)]),
        ((48, 80), [(15, 256)]),
        ((48, 84), [(15, 256), (3, 64)]),
        ((10, 32), [(2, 160)]),
    ],
)
@pytest.mark.parametrize('prefix', [0, 1])
def test_windows_of_one_size_are_one_call_and_no_query_is_padded(
    grid: Grid, shapes: list[tuple[int, int]], prefix: int
) -> None:
    calls = []

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        assert k.shape == v.shape
        calls.append((*q.shape, k.shape[2]))
        return eager_attention(q, k, v, scale)

    q = torch.randn(BATCH, HEADS, prefix + grid[0] * grid[1], CHANNELS)
    windowed_attention(q, q, q, SCALE, kernel=kernel, grid=grid, window=16, prefix=prefix)
    expected = [(BATCH * count, HEADS, size, CHANNELS, size + prefix) for count, size in shapes]
    if prefix:
        expected.append((BATCH, HEADS, prefix, CHANNELS, q.shape[2]))
    assert calls == expected


@pytest.mark.parametrize('name', ON_A_CPU)
@pytest.mark.parametrize('prefix', [0, 2])
def test_every_kernel_serves(name: str, prefix: int) -> None:
    q, k, v, weight = parts((5, 7), prefix, torch.float32)
    options = {'grid': (5, 7), 'window': 3, 'prefix': prefix, 'filler': filler(torch.float32)}
    ours = windowed_attention(q, k, v, SCALE, kernel=get_attention(name).run, **options)
    expected = windowed_attention(q, k, v, SCALE, kernel=eager_attention, **options)
    torch.testing.assert_close(ours, expected, **FP32)
    for own, other in zip(gradients(ours, weight, q, k, v), gradients(expected, weight, q, k, v), strict=True):
        torch.testing.assert_close(own, other, **FP32)


def test_tokens_that_are_no_grid_are_an_error_of_the_caller() -> None:
    q = torch.zeros(1, 1, 7, 4)
    with pytest.raises(AssertionError, match='7 tokens, expected 1 [+] 2 x 4'):
        windowed_attention(q, q, q, SCALE, kernel=eager_attention, grid=(2, 4), window=2, prefix=1)
