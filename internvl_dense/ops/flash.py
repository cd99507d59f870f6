"""Attention through the flash-attn 2 package, where a user has installed it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util

import torch

from internvl_dense.errors import UserError
from internvl_dense.ops.attention import Kernel

PACKAGE = 'flash_attn'
HALF = (torch.float16, torch.bfloat16)


def _why_not(q: torch.Tensor | None = None) -> str | None:
    if importlib.util.find_spec(PACKAGE) is None:
        return 'flash-attn 2.x is not installed (pip install flash-attn)'
    version = importlib.metadata.version('flash-attn')
    if not version.startswith('2.'):
        return f'flash-attn {version} is installed, 2.x is needed'
    if q is not None and (not q.is_cuda or q.dtype not in HALF):
        return f'it needs fp16 or bf16 on a CUDA device, got {q.dtype} on {q.device}'
    return None


def flash_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """flash-attn 2 for (B, H, N, D) in fp16 or bf16 on a CUDA device.

    Raises:
        UserError: Wrong dtype or device.
    """
    reason = _why_not(q)
    if reason:
        raise UserError(f"attention='flash' is not usable: {reason}. Choose attention='sdpa' or dtype=torch.bfloat16.")
    run = importlib.import_module(PACKAGE).flash_attn_func
    out_BNHD: torch.Tensor = run(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), softmax_scale=scale)
    return out_BNHD.transpose(1, 2)


KERNEL = Kernel('flash', flash_attention, _why_not)
