"""SyncBN as this project means it: fp32, on any device, with one process or many."""

from __future__ import annotations

import mmcv.cnn  # noqa: F401  registers mmcv's own SyncBN, which ours replaces
from mmengine.registry import MODELS

from internvl_dense.training.sync_bn import SyncBatchNorm32

MODELS.register_module(name='SyncBN', module=SyncBatchNorm32, force=True)
