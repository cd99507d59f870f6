"""The convolutional branch of ViT-Adapter: maps of an image at strides 4, 8, 16 and 32.

Suffixes: B batch, C channels, h x w cells of a map.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from internvl_dense.dense.pyramid import ChannelLayerNorm

STRIDES = (4, 8, 16, 32)  # of the four maps, in pixels


class SpatialPrior(nn.Module):
    """Convolutions that keep the detail a patch embedding loses.

    Every convolution of size 3 has a stride of 1 or 2 and a padding of 1, so a map of stride s has
    ceil(height / s) x ceil(width / s) cells at any size of the image. Names of parameters are the published ones.

    Args:
        width: Channels of the stem; the later stages have two and four times as many.
        channels: Channels of the maps.
        levels: Which of the four maps are wanted; no parameter is made that none of them needs.
    """

    def __init__(self, width: int, channels: int, levels: Collection[int] = (0, 1, 2, 3)) -> None:
        super().__init__()
        self.levels = tuple(sorted(levels))
        self.stem = nn.Sequential(
            *_stage(3, width, stride=2), *_stage(width, width), *_stage(width, width),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        widths = (width, 2 * width, 4 * width, 4 * width)
        for level in range(1, self.levels[-1] + 1):
            stage = nn.Sequential(*_stage(widths[level - 1], widths[level], stride=2))
            self.add_module(f'conv{level + 1}', stage)
        for level in self.levels:
            self.add_module(f'fc{level + 1}', nn.Conv2d(widths[level], channels, kernel_size=1))

    def forward(self, image_B3HW: torch.Tensor) -> dict[int, torch.Tensor]:
        """Level to its map (B, C, ceil(H / stride), ceil(W / stride)); strides are 4, 8, 16 and 32."""
        maps = {}
        x_BChw = image_B3HW
        for level in range(self.levels[-1] + 1):
            x_BChw = self.get_submodule(f'conv{level + 1}' if level else 'stem')(x_BChw)
            if level in self.levels:
                maps[level] = self.get_submodule(f'fc{level + 1}')(x_BChw)
        return maps


def _stage(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    return [convolution, ChannelLayerNorm(outputs), nn.ReLU()]
