"""One process, one device."""

from __future__ import annotations

from mmengine._strategy import SingleDeviceStrategy
from mmengine.device import get_device
from mmengine.registry import STRATEGIES
from torch import nn

from internvl_dense.openmmlab.strategies.base import DenseStrategyMixin


@STRATEGIES.register_module()
class DenseSingle(DenseStrategyMixin, SingleDeviceStrategy):
    """A single process. SyncBN stays as it is: ours works alone."""

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        return model.to(get_device())
