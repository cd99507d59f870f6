"""Four maps at four strides from the maps of a plain ViT.

Suffixes: B batch, C channels, h x w cells of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from internvl_dense.errors import UserError

NORM_EPS = 1e-6  # of the published channel norm
LEVELS = 4


class ChannelLayerNorm(nn.Module):
    """Layer norm over the channels of each cell of a (B, C, h, w) map: statistics in fp32, dtype of the input kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        x_BhwC = x_BChw.permute(0, 2, 3, 1).float()
        x_BhwC = F.layer_norm(x_BhwC, self.weight.shape, self.weight.float(), self.bias.float(), NORM_EPS)
        return x_BhwC.permute(0, 3, 1, 2).to(x_BChw.dtype)


class ViTFeaturePyramid(nn.Module):
    """The published pyramid: each of four maps is brought to its own stride.

    Strides are a quarter, half, one and two times the patch. Parameter names are the published ones: up1 (two
    transposed convolutions), up2 (one), up3 (none), up4 (max pooling, which floors odd grids).

    Args:
        channels: Channels of every input and output map.
        final_norm: Channel norm at the end of each branch. No published InternViT recipe uses it.
    """

    def __init__(self, channels: int, final_norm: bool = False) -> None:
        super().__init__()

        def last() -> nn.Module:
            return ChannelLayerNorm(channels) if final_norm else nn.Identity()

        def up() -> nn.Module:
            return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)

        self.channels = channels
        self.up1 = nn.Sequential(up(), ChannelLayerNorm(channels), nn.GELU(), up(), last())
        self.up2 = nn.Sequential(up(), last())
        self.up3 = nn.Sequential(nn.Identity(), last())
        self.up4 = nn.Sequential(nn.MaxPool2d(2), last())

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Four maps (B, C, h, w) to maps of 4h x 4w, 2h x 2w, h x w and h // 2 x w // 2 cells.

        Raises:
            UserError: Not four maps, or a grid of a single row or column, which max pooling would empty.
        """
        if len(maps) != LEVELS:
            raise UserError(f"the pyramid reads {LEVELS} maps, got {len(maps)}; use out_indices='stages'")
        if min(maps[-1].shape[-2:]) < 2:
            raise UserError(f'a grid of {tuple(maps[-1].shape[-2:])} patches is too small for a pyramid; '
                            'the image needs two patches per side')
        branches = (self.up1, self.up2, self.up3, self.up4)
        return [branch(x_BChw) for branch, x_BChw in zip(branches, maps, strict=True)]

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
