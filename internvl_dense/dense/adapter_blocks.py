"""Blocks of ViT-Adapter: deformable attention between the tokens of a ViT and those of a spatial prior.

Suffixes: B batch, N tokens, C channels, h x w cells of a map. The tokens of several maps follow one another, row-major.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from internvl_dense.backbones.layers import INIT_STD, DropPath
from internvl_dense.dense.grids import Sampling
from internvl_dense.dense.pyramid import ChannelLayerNorm
from internvl_dense.ops.deform_attn import get_deform_attn

# Of the norms of injectors and extractors: the published class got torch's default, not the 1e-6 of its other norms.
NORM_EPS = 1e-5


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention with the published names of parameters.

    Each query reads `num_points` places of each map around its own; places and weights come from the query alone
    (Zhu et al., "Deformable DETR", 2021). Places and weights are computed in fp32 at least.

    Args:
        channels: Of queries and values.
        num_heads: Heads; `channels * ratio` is a multiple of it.
        num_levels: Maps that are read.
        num_points: Places on each map for each head.
        ratio: Channels inside over `channels`.
        kernel: Name of the kernel, see `internvl_dense.ops.deform_attn`.
    """

    def __init__(
        self, channels: int, num_heads: int, num_levels: int, num_points: int, ratio: float, kernel: str = 'auto',
    ) -> None:
        super().__init__()
        inner = int(channels * ratio)
        self.grid = (num_heads, num_levels, num_points)
        self.kernel = get_deform_attn(kernel)
        self.sampling_offsets = nn.Linear(channels, math.prod(self.grid) * 2)
        self.attention_weights = nn.Linear(channels, math.prod(self.grid))
        self.value_proj = nn.Linear(channels, inner)
        self.output_proj = nn.Linear(inner, channels)

    def forward(self, query_BNC: torch.Tensor, value_BNC: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        """(B, N, C) queries to (B, N, C); `value_BNC` holds the tokens of the maps of `sampling`."""
        heads, levels, points = self.grid
        precision = torch.promote_types(query_BNC.dtype, torch.float32)
        value = self.value_proj(value_BNC).unflatten(-1, (heads, -1))
        offsets = self.sampling_offsets(query_BNC).to(precision).unflatten(-1, (*self.grid, 2))
        logits = self.attention_weights(query_BNC).to(precision).unflatten(-1, (heads, levels * points))
        locations = sampling.references[:, :, None, :, None] + offsets / sampling.sizes[:, None]
        weights = logits.softmax(dim=-1).unflatten(-1, (levels, points))
        out_BNC: torch.Tensor = self.output_proj(self.kernel.run(value, sampling.shapes, locations, weights))
        return out_BNC

    def reset_parameters(self) -> None:
        """As published: at the start each head looks in a direction of its own, each point one cell further out."""
        heads, levels, points = self.grid
        angles = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        distances = torch.arange(1, points + 1, dtype=torch.float32)
        bias = (directions[:, None, None] * distances[:, None]).expand(heads, levels, points, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.flatten())
        for zero in (self.sampling_offsets.weight, self.attention_weights.weight, self.attention_weights.bias):
            nn.init.zeros_(zero)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class DepthwiseConv(nn.Module):
    """A depth-wise 3 x 3 convolution over each of several maps, given as tokens; one kernel serves all maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels)

    def forward(self, x_BNC: torch.Tensor, shapes: Sequence[tuple[int, int]]) -> torch.Tensor:
        parts = x_BNC.split([height * width for height, width in shapes], dim=1)
        maps = [tokens_to_map(part, shape) for part, shape in zip(parts, shapes, strict=True)]
        return torch.cat([self.dwconv(map_BChw).flatten(2).transpose(1, 2) for map_BChw in maps], dim=1)


class ConvFFN(nn.Module):
    """MLP with a depth-wise convolution before its activation."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x_BNC: torch.Tensor, shapes: Sequence[tuple[int, int]]) -> torch.Tensor:
        out_BNC: torch.Tensor = self.fc2(F.gelu(self.dwconv(self.fc1(x_BNC), shapes)))
        return out_BNC


class Injector(nn.Module):
    """Adds to the tokens of the ViT what they read from the spatial tokens, scaled by `gamma`.

    Args:
        channels: Of all tokens.
        attention: Reads the maps of the spatial tokens.
        init_value: Of `gamma`; at 0 the ViT starts as it was pre-trained.
    """

    def __init__(self, channels: int, attention: MSDeformAttn, init_value: float) -> None:
        super().__init__()
        self.init_value = init_value
        self.query_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.attn = attention
        self.gamma = nn.Parameter(torch.full((channels,), init_value))

    def forward(self, x_BNC: torch.Tensor, c_BNC: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        """Patch tokens `x_BNC` in their own dtype, with what they read from the spatial tokens `c_BNC`."""
        query = self.query_norm(x_BNC.to(self.gamma.dtype))
        added = self.gamma * self.attn(query, self.feat_norm(c_BNC.to(self.gamma.dtype)), sampling)
        return x_BNC + added.to(x_BNC.dtype)


class Extractor(nn.Module):
    """Adds to the spatial tokens what they read from the ViT, then a `ConvFFN`.

    Args:
        channels: Of all tokens.
        attention: Reads the one map of the ViT.
        hidden: Hidden channels of the `ConvFFN`; None leaves it out.
        drop_path: Probability that a sample skips the `ConvFFN` in training.
    """

    def __init__(self, channels: int, attention: MSDeformAttn, hidden: int | None, drop_path: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.attn = attention
        if hidden is not None:
            self.ffn = ConvFFN(channels, hidden)
            self.ffn_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.has_ffn = hidden is not None
        self.drop_path = DropPath(drop_path)

    def forward(
        self, c_BNC: torch.Tensor, x_BNC: torch.Tensor, sampling: Sampling, shapes: Sequence[tuple[int, int]],
    ) -> torch.Tensor:
        """Spatial tokens of maps of these `shapes`, with what they read from the patch tokens `x_BNC`."""
        dtype = self.query_norm.weight.dtype
        c_BNC = c_BNC + self.attn(self.query_norm(c_BNC.to(dtype)), self.feat_norm(x_BNC.to(dtype)), sampling)
        if self.has_ffn:
            c_BNC = c_BNC + self.drop_path(self.ffn(self.ffn_norm(c_BNC.to(dtype)), shapes))
        return c_BNC


class Interaction(nn.Module):
    """What surrounds one run of ViT blocks: an injector before it (or none), extractors behind it."""

    def __init__(self, injector: Injector | None, extractors: Sequence[Extractor]) -> None:
        super().__init__()
        if injector is not None:
            self.injector = injector
        self.has_injector = injector is not None
        self.extractor = extractors[0]
        if len(extractors) > 1:
            self.extra_extractors = nn.ModuleList(extractors[1:])
        self.has_extra = len(extractors) > 1

    @property
    def extractors(self) -> list[nn.Module]:
        """All of them, in their order."""
        return [self.extractor, *(self.extra_extractors if self.has_extra else ())]


def tokens_to_map(x_BNC: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(B, h * w, C) to (B, C, h, w), without a copy."""
    return x_BNC.unflatten(1, shape).permute(0, 3, 1, 2)


def init_part(module: nn.Module) -> None:
    """Initialises one module of an adapter as published; deformable attention comes after its own layers.

    Linear layers are truncated normal of 0.02, convolutions normal of variance 2 / fan-out (their groups divide it),
    biases zero, norms at identity.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.LayerNorm, ChannelLayerNorm)):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Injector):
        nn.init.constant_(module.gamma, module.init_value)
