"""Four maps at four strides from the maps, or the last map, of a plain ViT.

Suffixes: B batch, C channels, h x w cells of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from internvl_dense.backbones.internvit import FeatureInfo
from internvl_dense.errors import UserError

NORM_EPS = 1e-6  # of the published channel norm
SCALES = (4, 2, 1, 0.5)  # output cells per input cell along a side
LEVELS = len(SCALES)

T = TypeVar('T')


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of each cell of a (B, C, h, w) map: statistics in fp32, dtype of the input kept."""

    def __init__(self, channels: int, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        x_BhwC = x_BChw.permute(0, 2, 3, 1).float()
        x_BhwC = F.layer_norm(x_BhwC, self.weight.shape, self.weight.float(), self.bias.float(), self.eps)
        return x_BhwC.permute(0, 3, 1, 2).to(x_BChw.dtype)


def pyramid_info(trunk: FeatureInfo) -> FeatureInfo:
    """What the pyramid makes of the maps of a trunk: strides of a quarter, half, one and two times the patch.

    Args:
        trunk: The `feature_info` of a backbone with one or four maps.

    Raises:
        UserError: Another number of maps.
    """
    strides = [stride / scale for stride, scale in zip(_spread(trunk.strides), SCALES, strict=True)]
    return FeatureInfo(
        indices=tuple(_spread(trunk.indices)), channels=tuple(_spread(trunk.channels)),
        strides=tuple(int(stride) if stride.is_integer() else stride for stride in strides),
    )


class ViTFeaturePyramid(nn.Module):
    """The published pyramid: each of four maps, or the same map four times, is brought to its own stride.

    Strides are a quarter, half, one and two times the patch, see `pyramid_info`. Parameter names are the published
    ones: up1 (two transposed convolutions), up2 (one), up3 (none), up4 (max pooling). The published segmentors read
    four maps, the published detector the last one only.

    Args:
        channels: Channels of every input and output map.
        final_norm: Channel norm at the end of each branch. No published InternViT recipe uses it.
        ceil_mode: Let max pooling keep the last row and column of an odd grid as a cell of its own. The published
            pyramid drops them from the coarsest map, and weights trained that way expect it.
    """

    def __init__(self, channels: int, final_norm: bool = False, ceil_mode: bool = False) -> None:
        super().__init__()

        def last() -> nn.Module:
            return ChannelLayerNorm(channels) if final_norm else nn.Identity()

        def up() -> nn.Module:
            return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)

        self.channels = channels
        self.ceil_mode = ceil_mode
        self.up1 = nn.Sequential(up(), ChannelLayerNorm(channels), nn.GELU(), up(), last())
        self.up2 = nn.Sequential(up(), last())
        self.up3 = nn.Sequential(nn.Identity(), last())
        self.up4 = nn.Sequential(nn.MaxPool2d(2, ceil_mode=ceil_mode), last())

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """One or four maps (B, C, h, w) to maps of 4h x 4w, 2h x 2w, h x w and h // 2 x w // 2 cells.

        With `ceil_mode` the last one has ceil(h / 2) x ceil(w / 2) cells.

        Raises:
            UserError: Another number of maps, or a grid of a single row or column, which flooring would empty.
        """
        spread = _spread(maps)
        if not self.ceil_mode and min(spread[-1].shape[-2:]) < 2:
            raise UserError(f'a grid of {tuple(spread[-1].shape[-2:])} patches is too small for a pyramid; '
                            'the image needs two patches per side')
        branches = (self.up1, self.up2, self.up3, self.up4)
        return [branch(x_BChw) for branch, x_BChw in zip(branches, spread, strict=True)]

    def init_weights(self) -> None:
        """Normal weights of variance 2 / fan-out for the transposed convolutions, as published; norms at identity."""
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_in', nonlinearity='relu')
                assert module.bias is not None
                nn.init.zeros_(module.bias)
            elif isinstance(module, ChannelLayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)


def _spread(items: Sequence[T]) -> Sequence[T]:
    """Four items as they are, one item four times.

    Raises:
        UserError: Another number.
    """
    if len(items) not in (1, LEVELS):
        raise UserError(f"the pyramid reads {LEVELS} maps or 1, got {len(items)}; use out_indices='stages' or 'last'")
    return items if len(items) == LEVELS else [items[0]] * LEVELS
