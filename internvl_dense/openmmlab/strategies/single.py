"""One process, one device."""

from __future__ import annotations

from typing import Any

from mmengine._strategy import SingleDeviceStrategy
from mmengine.device import get_device
from mmengine.registry import STRATEGIES
from torch import nn

from internvl_dense.errors import UserError
from internvl_dense.openmmlab.strategies.base import DenseStrategyMixin


@STRATEGIES.register_module()
class DenseSingle(DenseStrategyMixin, SingleDeviceStrategy):
    """A single process. SyncBN stays as it is: ours works alone."""

    def _setup_distributed(self, launcher: str = 'none', **kwargs: Any) -> None:
        raise UserError(f'launcher {launcher!r} starts several processes, and the strategy single knows one: '
                        'use --strategy ddp')

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        return model.to(get_device())
