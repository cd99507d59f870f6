"""Batch norm over the batch of all processes, in fp32, on any device.

torch's SyncBatchNorm refuses CPU tensors, and its plain BatchNorm mixes badly with bf16 inputs. This one computes in
fp32 whatever it is given, works with any communication backend and with a single process, and has BatchNorm's keys.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.nn.functional import all_reduce

from internvl_dense.errors import UserError
from internvl_dense.training.precision import without_autocast


class SyncBatchNorm32(nn.modules.batchnorm._BatchNorm):
    """Drop-in for BatchNorm2d: (B, C, h, w) or (B, C), statistics over all processes, arithmetic in fp32."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f'expected (B, C, ...), got shape {tuple(input.shape)}')

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self._check_input_dim(input)
        with without_autocast(input.device.type):
            x = input.float()
            use_batch = self.training or self.running_mean is None
            y = self._batch_norm(x) if use_batch else self._running_norm(x)
        return y.to(input.dtype)

    def _running_norm(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, _fp32(self.running_mean), _fp32(self.running_var), *self._affine(), False, 0.0, self.eps)

    def _affine(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if self.weight is None:
            return None, None
        return self.weight.float(), self.bias.float()

    def _batch_norm(self, x: torch.Tensor) -> torch.Tensor:
        mean, var, count = self._statistics(x)
        self._track(mean.detach(), var.detach(), count)
        shape = (1, -1, *([1] * (x.dim() - 2)))
        scale = torch.rsqrt(var + self.eps)
        shift = -mean * scale
        weight, bias = self._affine()
        if weight is not None and bias is not None:
            scale, shift = scale * weight, shift * weight + bias
        return x * scale.view(shape) + shift.view(shape)

    def _statistics(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Mean and biased variance per channel, and the number of values behind them, over all processes."""
        dims = [d for d in range(x.dim()) if d != 1]
        values = x.numel() // x.shape[1]
        total, mean = float(values), x.mean(dims)
        if self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            counts = x.new_tensor([values])
            dist.all_reduce(counts)
            total = float(counts)
            mean = all_reduce(mean * (values / total))
            var = all_reduce((x - _spread(mean, x)).square().sum(dims) / total)
        else:
            var = (x - _spread(mean, x)).square().mean(dims)
        if total <= 1:
            raise UserError('batch norm got a single value per channel, so its variance is undefined. Raise the batch '
                            'size, use more processes, or drop the 1 x 1 pooling scale.')
        return mean, var, int(total)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, var: torch.Tensor, count: int) -> None:
        if not self.training or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = var * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def _spread(value_C: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return value_C.view(1, -1, *([1] * (x.dim() - 2)))


def _fp32(value_C: torch.Tensor | None) -> torch.Tensor | None:
    return None if value_C is None else value_C.float()
