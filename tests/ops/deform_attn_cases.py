"""Inputs of deformable attention, and what a kernel makes of them; run as a program, Triton's kernels on the CPU."""

from __future__ import annotations

import os

import torch

from internvl_dense.ops.deform_attn import DEFORM_KERNELS, load_kernels

SHAPES = ((5, 7), (3, 4), (1, 2))
# Name -> (maps, images, heads, channels of a head, queries, points); odd numbers, so that no tile is full.
CASES = {
    'injector': (SHAPES, 2, 3, 5, 17, 2),
    'extractor': (((4, 3),), 1, 2, 8, 17, 4),
    'one': (((1, 1),), 1, 1, 1, 1, 1),
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


def make(name: str, dtype: torch.dtype = torch.float64, device: str = 'cpu') -> tuple[torch.Tensor, ...]:
    """Values, locations (a third of them beyond the maps), weights and the gradient of the output."""
    shapes, batch, heads, channels, queries, points = CASES[name]
    generator = torch.Generator().manual_seed(len(name))
    length, levels = sum(height * width for height, width in shapes), len(shapes)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    value, grad = draw(batch, length, heads, channels), draw(batch, queries, heads * channels)
    locations = 0.5 + 0.5 * draw(batch, queries, heads, levels, points, 2)
    weights = draw(batch, queries, heads, levels, points)
    kinds = (dtype, *[torch.promote_types(dtype, torch.float32)] * 2, dtype)
    return tuple(t.to(kind).to(device) for t, kind in zip((value, locations, weights, grad), kinds, strict=True))


def run(kernel: str, name: str, dtype: torch.dtype, device: str = 'cpu') -> tuple[torch.Tensor, ...]:
    """Output and the gradients of values, locations and weights."""
    *inputs, grad = make(name, dtype, device)
    inputs = [one.requires_grad_() for one in inputs]
    out = DEFORM_KERNELS.get(kernel).run(inputs[0], CASES[name][0], inputs[1], inputs[2])
    out.backward(grad)
    return (out.detach(), *(one.grad for one in inputs if one.grad is not None))


def compare(kernel: str, dtype: torch.dtype, device: str = 'cpu') -> None:
    """A kernel against the reference in every case: values and all three gradients."""
    for name in CASES:
        pairs = zip(run(kernel, name, dtype, device), run('grid_sample', name, dtype, device), strict=True)
        for ours, expected in pairs:
            assert ours.dtype == expected.dtype
            torch.testing.assert_close(ours, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def compare_half(kernel: str, dtype: torch.dtype, device: str = 'cpu') -> None:
    """A kernel on half-precision values against the reference on the same values in fp32."""
    rounded = torch.finfo(dtype).eps
    for name in CASES:
        value, locations, weights, _ = make(name, dtype, device)
        out = DEFORM_KERNELS.get(kernel).run(value, CASES[name][0], locations, weights)
        exact = DEFORM_KERNELS.get('grid_sample').run(value.float(), CASES[name][0], locations, weights)
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), exact, atol=1e-5, rtol=rounded)
        value_grad = run(kernel, name, dtype, device)[1]
        exact_grad = run('grid_sample', name, torch.float64, device)[1]
        assert value_grad.dtype == dtype
        torch.testing.assert_close(value_grad.double(), exact_grad, atol=20 * rounded, rtol=20 * rounded)


if __name__ == '__main__':
    assert os.environ['TRITON_INTERPRET'] == '1'
    load_kernels()
    for kind in (torch.float64, torch.float32):
        compare('triton', kind)
    for kind in (torch.bfloat16, torch.float16):
        compare_half('triton', kind)
    print('equal')
