"""Layers of the vision transformer.

Suffixes: B batch, N tokens, C channels, H heads, D channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.ops.attention import get_attention
from internvl_dense.ops.windowed import KeyValue, windowed_attention

INIT_STD = 0.02  # truncated normal of linear layers and tokens, as usual for ViTs


class RMSNorm(nn.Module):
    """x / rms(x) * weight, the mean of squares taken in fp32; keeps the dtype of its input."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)

    def extra_repr(self) -> str:
        return f'{self.weight.numel()}, eps={self.eps}'


def make_norm(spec: BackboneSpec) -> nn.Module:
    """The norm of the variant over `embed_dim` channels."""
    if spec.norm == 'rms':
        return RMSNorm(spec.embed_dim, spec.norm_eps)
    return nn.LayerNorm(spec.embed_dim, eps=spec.norm_eps)


class PatchEmbed(nn.Module):
    """Non-overlapping patches as tokens.

    A side that is not a multiple of the patch is padded with zeros (the mean colour after normalisation) at the bottom
    and right, so the grid is ceil(height / patch) x ceil(width / patch) and no pixel is lost.
    """

    def __init__(self, patch_size: int, channels: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, channels, kernel_size=patch_size, stride=patch_size)

    def forward(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, 3, height, width) to (B, C, grid height, grid width)."""
        height, width = image_B3HW.shape[-2:]
        pad_bottom, pad_right = -height % self.patch_size, -width % self.patch_size
        if pad_bottom or pad_right:
            image_B3HW = F.pad(image_B3HW, (0, pad_right, 0, pad_bottom))
        x_BChw: torch.Tensor = self.proj(image_B3HW)
        return x_BChw


class Attention(nn.Module):
    """Self-attention over all tokens or within windows.

    q and k are normalised over all heads together where the variant says so. Parameters are the same with and without
    windows; only real tokens are projected.

    Args:
        spec: Geometry of the variant.
        kernel: Name of the attention kernel.
        window: Side of a window in tokens; None attends to all tokens.
        padding: 'masked' or 'zeros', see `internvl_dense.ops.windowed`.
    """

    def __init__(self, spec: BackboneSpec, kernel: str, window: int | None = None, padding: str = 'masked') -> None:
        super().__init__()
        dim = spec.embed_dim
        self.window = window
        self.padding = padding
        self.num_heads = spec.num_heads
        self.scale = spec.head_dim**-0.5
        self.kernel = get_attention(kernel)
        self.qkv = nn.Linear(dim, 3 * dim, bias=spec.qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.q_norm = RMSNorm(dim, spec.norm_eps) if spec.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(dim, spec.norm_eps) if spec.qk_norm else nn.Identity()

    def forward(self, x_BNC: torch.Tensor, grid: tuple[int, int] | None = None, prefix: int = 0) -> torch.Tensor:
        """(B, prefix + h * w, C) to the same shape; only windows ask for the `grid` (h, w) and the `prefix`."""
        q, k, v = self._project(x_BNC)
        if self.window is None:
            out_BHND = self.kernel.run(q, k, v, self.scale)
        else:
            assert grid is not None, 'attention within windows needs the grid of its tokens'
            out_BHND = windowed_attention(
                q, k, v, self.scale, kernel=self.kernel.run, grid=grid, window=self.window, prefix=prefix,
                filler=self._filler(x_BNC, grid, self.window),
            )
        out_BNC: torch.Tensor = self.proj(out_BHND.transpose(1, 2).flatten(2))
        return out_BNC

    def _project(self, x_BNC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v = self.qkv(x_BNC).chunk(3, dim=-1)
        return self._split(self.q_norm(q)), self._split(self.k_norm(k)), self._split(v)

    def _filler(self, x_BNC: torch.Tensor, grid: tuple[int, int], window: int) -> KeyValue | None:
        """Key and value (1, H, 1, D) of a cell that is zero before the projection; None where no window has one."""
        if self.padding == 'masked' or not any(side % window for side in grid):
            return None
        _, key, value = self._project(x_BNC.new_zeros(1, 1, x_BNC.shape[2]))
        return key, value

    def _split(self, x_BNC: torch.Tensor) -> torch.Tensor:
        return x_BNC.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers around the exact (erf) GELU, or a gated SwiGLU whose first layer yields gate and value."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.gated = spec.mlp == 'swiglu'
        self.fc1 = nn.Linear(spec.embed_dim, spec.mlp_dim * (2 if self.gated else 1))
        self.fc2 = nn.Linear(spec.mlp_dim, spec.embed_dim)

    def forward(self, x_BNC: torch.Tensor) -> torch.Tensor:
        hidden = self.fc1(x_BNC)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = F.gelu(hidden)
        out_BNC: torch.Tensor = self.fc2(hidden)
        return out_BNC


class LayerScale(nn.Module):
    """Learned scale for each channel of a residual branch."""

    def __init__(self, channels: int, init: float) -> None:
        super().__init__()
        self.init = init
        self.gamma = nn.Parameter(torch.full((channels,), init))

    def forward(self, x_BNC: torch.Tensor) -> torch.Tensor:
        return x_BNC * self.gamma.to(x_BNC.dtype)


class DropPath(nn.Module):
    """Stochastic depth: drops the residual branch of a sample with probability `rate` and scales the rest by 1/keep."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x_BNC: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x_BNC
        keep = 1 - self.rate
        mask_B11 = x_BNC.new_empty(x_BNC.shape[0], 1, 1).bernoulli_(keep)
        return x_BNC * (mask_B11 / keep)

    def extra_repr(self) -> str:
        return f'rate={self.rate:.3f}'


class Block(nn.Module):
    """Pre-norm transformer block with layer scale and drop path on both branches.

    Args:
        spec: Geometry of the variant.
        kernel: Name of the attention kernel.
        drop_path: Probability that a sample skips a branch.
        window: Side of the windows of its attention in tokens, or None.
        padding: As for `Attention`.
    """

    def __init__(
        self, spec: BackboneSpec, kernel: str, drop_path: float, window: int | None = None, padding: str = 'masked',
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(spec)
        self.attn = Attention(spec, kernel, window, padding)
        self.ls1 = LayerScale(spec.embed_dim, spec.layer_scale_init)
        self.norm2 = make_norm(spec)
        self.mlp = Mlp(spec)
        self.ls2 = LayerScale(spec.embed_dim, spec.layer_scale_init)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BNC: torch.Tensor, grid: tuple[int, int] | None = None, prefix: int = 0) -> torch.Tensor:
        x_BNC = x_BNC + self.drop_path(self.ls1(self.attn(self.norm1(x_BNC), grid, prefix)))
        return x_BNC + self.drop_path(self.ls2(self.mlp(self.norm2(x_BNC))))


def init_layer(module: nn.Module) -> None:
    """Initialises one layer from scratch: truncated normal linears, Xavier patches, unit norms, small layer scale."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.flatten(1))
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    elif isinstance(module, (RMSNorm, nn.LayerNorm)):
        nn.init.ones_(module.weight)
        if isinstance(module, nn.LayerNorm):
            nn.init.zeros_(module.bias)
    elif isinstance(module, LayerScale):
        nn.init.constant_(module.gamma, module.init)
