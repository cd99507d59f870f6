"""Deformable attention as Triton kernels: nothing to build, forward and all three gradients, added up in fp32.

Gradients of `value` are collected with atomic additions, whose order varies from run to run on a GPU: they agree to
rounding, not bit for bit.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from typing import Any

import torch

from internvl_dense.ops.deform_attn import DeformKernel, Shapes

QUERIES = 16  # of one program; with the 32 channels of a head of InternViT-6B's adapter a tile has 512 numbers
INTERPRETER = 'TRITON_INTERPRET'  # Triton's switch to run kernels on the CPU, slowly, to check them
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _interpreted() -> bool:
    return os.environ.get(INTERPRETER) == '1'


def _why_not(value: torch.Tensor | None = None) -> str | None:
    if importlib.util.find_spec('triton') is None:
        return 'triton is not installed (PyTorch for CUDA brings it)'
    if _interpreted():
        return None
    if value is None:
        return None if torch.cuda.is_available() else 'there is no CUDA device'
    if not value.is_cuda or value.dtype not in DTYPES:
        return f'it needs a floating-point tensor on a CUDA device, got {value.dtype} on {value.device}'
    return None


@functools.lru_cache(maxsize=64)
def _table(shapes: tuple[tuple[int, int], ...], device: torch.device) -> torch.Tensor:
    """Height, width and first token of each map (V, 3) on the device; cached, for the copy waits for the device."""
    starts = [sum(height * width for height, width in shapes[:level]) for level in range(len(shapes))]
    rows = [(height, width, start) for (height, width), start in zip(shapes, starts, strict=True)]
    return torch.tensor(rows, dtype=torch.int32, device=device)


def _launch(kernel: Any, value: torch.Tensor, locations: torch.Tensor, table: torch.Tensor, *tensors: torch.Tensor
            ) -> None:
    """Starts one program for each block of queries, head and image."""
    batch, length, heads, channels = value.shape
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    grid = (-(-queries // QUERIES), heads, batch)
    with torch.cuda.device_of(value):  # Triton launches on the current device
        kernel[grid](
            value, locations, *tensors, table, queries, length, heads, channels,
            levels=levels, points=points, block=QUERIES, width=max(16, 1 << (channels - 1).bit_length()),
            double=value.dtype == torch.float64,
        )


class _DeformAttn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor, table: torch.Tensor
    ) -> torch.Tensor:
        kernels = importlib.import_module('internvl_dense.ops.deform_attn_triton_kernels')
        batch, queries, heads = weights.shape[:3]
        out = value.new_empty(batch, queries, heads, value.shape[3])
        _launch(kernels.forward_kernel, value, locations, table, weights, out)
        ctx.save_for_backward(value, locations, weights, table)
        return out.flatten(2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kernels = importlib.import_module('internvl_dense.ops.deform_attn_triton_kernels')
        value, locations, weights, table = ctx.saved_tensors
        precision = torch.promote_types(value.dtype, torch.float32)
        grad_value = torch.zeros_like(value, dtype=precision)
        grad_locations, grad_weights = torch.empty_like(locations), torch.empty_like(weights)
        _launch(kernels.backward_kernel, value, locations, table, weights, grad_out.contiguous(), grad_value,
                grad_locations, grad_weights)
        return grad_value.to(value.dtype), grad_locations, grad_weights, None


def triton_deform_attn(
    value: torch.Tensor, shapes: Shapes, locations: torch.Tensor, weights: torch.Tensor,
) -> torch.Tensor:
    """See `internvl_dense.ops.deform_attn`; for floating-point tensors on a CUDA device."""
    table = _table(tuple((height, width) for height, width in shapes), value.device)
    out: torch.Tensor = _DeformAttn.apply(value.contiguous(), locations.contiguous(), weights.contiguous(), table)
    return out


KERNEL = DeformKernel('triton', triton_deform_attn, _why_not)
