"""The simple feature pyramid: several strides from the last map of a plain ViT, without a top-down path.

Suffixes: B batch, C channels, h x w cells of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from internvl_dense.dense.pyramid import SCALES, ChannelLayerNorm


class SimpleFeaturePyramid(nn.Module):
    """ViTDet's pyramid (Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", 2022).

    Each scale is made from the last map: two transposed convolutions, one, none, or max pooling; then a 1 x 1 and a
    3 x 3 convolution, each with channel norm. Levels beyond the four repeat every second cell of the one before.

    Args:
        in_channels: Channels of the map; of a list, as necks are given, the last one.
        out_channels: Of every level.
        num_outs: Number of levels, at least four.
    """

    def __init__(self, in_channels: int | Sequence[int], out_channels: int = 256, num_outs: int = 5) -> None:
        super().__init__()
        width = in_channels if isinstance(in_channels, int) else in_channels[-1]
        self.num_outs = num_outs
        self.levels = nn.ModuleList(
            nn.Sequential(*_rescaling(width, scale), *_projection(_width(width, scale), out_channels))
            for scale in SCALES
        )

    @staticmethod
    def output_strides(strides: Sequence[float]) -> list[float]:
        """Strides of the four levels from those of the maps that are read."""
        return [strides[-1] / scale for scale in SCALES]

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The last of maps (B, C, h, w) to levels of 4h x 4w, 2h x 2w, h x w, h // 2 x w // 2, ... cells."""
        x_BChw = maps[-1]
        outputs = [level(x_BChw) for level in self.levels]
        while len(outputs) < self.num_outs:
            outputs.append(F.max_pool2d(outputs[-1], kernel_size=1, stride=2))
        return tuple(outputs)

    def init_weights(self) -> None:
        """Normal weights of variance 2 / fan-in for convolutions, norms at identity."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, mode='fan_in', nonlinearity='relu')
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _width(width: int, scale: float) -> int:
    """Channels behind the rescaling: each transposed convolution halves them."""
    return int(width // max(scale, 1))


def _rescaling(width: int, scale: float) -> list[nn.Module]:
    if scale == 4:
        return [nn.ConvTranspose2d(width, width // 2, 2, 2), ChannelLayerNorm(width // 2), nn.GELU(),
                nn.ConvTranspose2d(width // 2, width // 4, 2, 2)]
    if scale == 2:
        return [nn.ConvTranspose2d(width, width // 2, 2, 2)]
    return [nn.MaxPool2d(2)] if scale == 0.5 else []


def _projection(width: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(width, out_channels, 1, bias=False), ChannelLayerNorm(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), ChannelLayerNorm(out_channels)]
