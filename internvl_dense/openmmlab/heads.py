"""Heads for semantic segmentation that mmseg lacks."""

from __future__ import annotations

from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """The linear probe: batch norm, then a 1 x 1 convolution.

    Keys are the published ones: `norm.*` and `conv_seg.*`.

    Args:
        in_channels: Channels of the map that is read.
        kwargs: As for mmseg's BaseDecodeHead; no dropout unless asked for.
    """

    def __init__(self, in_channels: int, dropout_ratio: float = 0.0, **kwargs: Any) -> None:
        kwargs.setdefault('norm_cfg', {'type': 'SyncBN', 'requires_grad': True})
        kwargs.setdefault('channels', in_channels)
        super().__init__(in_channels, dropout_ratio=dropout_ratio, **kwargs)
        self.norm = build_norm_layer(self.norm_cfg, in_channels)[1]

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Maps of the backbone to logits (B, classes, h, w) at the stride of the map."""
        logits: torch.Tensor = self.cls_seg(self.norm(self._transform_inputs(inputs)))
        return logits
