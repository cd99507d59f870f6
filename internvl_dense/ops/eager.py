"""Attention spelled out: the reference that every kernel is compared with."""

from __future__ import annotations

import torch

from internvl_dense.ops.attention import Kernel


def eager_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """softmax(q k^T * scale) v for (B, H, N, D); the scale is applied to q, as in the published model."""
    scores = (q * scale) @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


KERNEL = Kernel('eager', eager_attention, lambda q: None)
