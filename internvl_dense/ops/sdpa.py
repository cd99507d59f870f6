"""Attention through PyTorch's fused scaled_dot_product_attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from internvl_dense.ops.attention import Kernel


def sdpa_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """Fused attention for (B, H, N, D); no mask is passed, so every back end may serve."""
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


KERNEL = Kernel('sdpa', sdpa_attention, lambda q: None)
