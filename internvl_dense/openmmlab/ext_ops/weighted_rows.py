"""Sums of weighted rows of a table: what sampling, pooling and their gradients come down to.

A bilinear sample is a sum of four pixels. With pixels as rows of C channels, any number of samples is one call of
`embedding_bag`, whose kernels read whole rows, need no C-times larger temporary and add in a fixed order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def gather_rows(table_RC: torch.Tensor, index_NS: torch.Tensor, weight_NS: torch.Tensor) -> torch.Tensor:
    """out[n] = sum over s of weight[n, s] * table[index[n, s]], (N, C)."""
    if not index_NS.numel() or not table_RC.numel():
        return table_RC.new_zeros(len(index_NS), table_RC.shape[1])
    return F.embedding_bag(index_NS, table_RC, mode='sum', per_sample_weights=weight_NS)


def scatter_rows(
    values_NC: torch.Tensor, index_NS: torch.Tensor, weight_NS: torch.Tensor, rows: int
) -> torch.Tensor:
    """The transpose of `gather_rows`, (rows, C): out[index[n, s]] += weight[n, s] * values[n], always in one order."""
    if not index_NS.numel() or not rows:
        return values_NC.new_zeros(rows, values_NC.shape[1])
    target, order = index_NS.flatten().sort(stable=True)
    starts = torch.searchsorted(target, torch.arange(rows, device=target.device))
    source = order.div(index_NS.shape[1], rounding_mode='floor')
    return F.embedding_bag(source, values_NC, starts, mode='sum', per_sample_weights=weight_NS.flatten()[order])


class _WeightedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(table, index, weight)
        return gather_rows(table, index, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor | None]:
        table, index, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_table = scatter_rows(grad, index, weight, len(table)) if ctx.needs_input_grad[0] else None
        grad_weight = _weight_gradient(table, index, weight, grad) if ctx.needs_input_grad[2] else None
        return grad_table, None, grad_weight


def _weight_gradient(
    table: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, grad: torch.Tensor
) -> torch.Tensor:
    with torch.enable_grad():
        leaf = weight.detach().requires_grad_()
        summed = gather_rows(table.detach(), index, leaf)
        if not summed.requires_grad:  # nothing to sum
            return torch.zeros_like(weight)
        return torch.autograd.grad(summed, leaf, grad)[0]


def weighted_rows(table_RC: torch.Tensor, index_NS: torch.Tensor, weight_NS: torch.Tensor) -> torch.Tensor:
    """`gather_rows` with gradients for the table and for the weights.

    Args:
        table_RC: float32 or float64.
        index_NS: int64, each below R.
        weight_NS: Of the table's dtype.
    """
    result: torch.Tensor = _WeightedRows.apply(table_RC, index_NS, weight_NS)
    return result
