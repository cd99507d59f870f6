"""InternViT: the one implementation of the backbone.

Suffixes: B batch, N tokens, C channels, h x w the grid of patches.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from internvl_dense.backbones.layers import INIT_STD, Block, PatchEmbed, init_layer, make_norm
from internvl_dense.backbones.position import resize_position
from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.backbones.windows import resolve_windows, window_faults
from internvl_dense.errors import UserError, problems
from internvl_dense.ops.windowed import PADDINGS
from internvl_dense.registry import unknown

OUTPUTS = ('stages', 'last', 'probe')
CHECKPOINTING = ('none', 'full')

FeatureMap = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class FeatureInfo:
    """What the output maps look like, so that no head has to be told.

    Args:
        indices: 0-based block after which each map is taken.
        channels: Channels of each map.
        strides: Input pixels per cell of each map; whole numbers for a trunk.
    """

    indices: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[float, ...]


def resolve_indices(spec: BackboneSpec, out_indices: str | Sequence[int]) -> tuple[int, ...]:
    """Turns 'stages' | 'last' | 'probe' or explicit block numbers into increasing 0-based indices.

    Args:
        spec: The variant, which knows its stages and its probe block.
        out_indices: A name, or block numbers; negative ones count from the end.

    Raises:
        UserError: Unknown name, index outside the depth, or indices that do not increase.
    """
    if isinstance(out_indices, str):
        named = {'stages': spec.stage_indices, 'last': (spec.depth - 1,), 'probe': (spec.probe_block,)}
        if out_indices not in named:
            raise UserError(f'{unknown("out_indices", out_indices, OUTPUTS)} Or give block numbers.')
        return named[out_indices]
    outside = [i for i in out_indices if not -spec.depth <= i < spec.depth]
    if outside or not out_indices:
        raise UserError(f'out_indices {list(out_indices)}: {outside or "empty"}; '
                        f'{spec.name} has blocks 0..{spec.depth - 1}')
    indices = tuple(i % spec.depth for i in out_indices)
    if any(later <= earlier for earlier, later in zip(indices, indices[1:], strict=False)):
        raise UserError(f'out_indices {list(out_indices)} do not increase; list each block once, in order')
    return indices


class InternViT(nn.Module):
    """Plain vision transformer that returns the maps of chosen blocks.

    Any height and width is accepted: the image is padded to a multiple of the patch (see `PatchEmbed`) and the position
    embedding is resampled to its grid. Blocks after the last one that is read are not computed and not trained.

    Args:
        spec: Geometry of the variant.
        out_indices: 'stages', 'last', 'probe' or 0-based block numbers.
        attention: Name of the attention kernel.
        drop_path_rate: Rate of the last block; the rate grows linearly from 0 at the first.
        checkpointing: 'none', or 'full' to recompute each block in backward where a gradient flows.
        return_cls: Return (map, class token (B, C)) for each output instead of the map.
        frozen: No gradients, no drop path, always in eval mode.
        window_size: Side of the attention windows in patches for all blocks, or a list with one entry for each block;
            None is global attention. Parameters do not depend on it.
        global_blocks: With one `window_size`, the blocks that stay global: 'stages' (the last of each quarter of the
            depth) or 0-based block numbers.
        window_padding: What a window that reaches beyond the grid sees there: 'masked' (nothing) or 'zeros' (patches
            that are zero before the projection, as in the published detector).

    Raises:
        UserError: An argument is out of its range.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        out_indices: str | Sequence[int] = 'stages',
        attention: str = 'auto',
        drop_path_rate: float = 0.0,
        checkpointing: str = 'none',
        return_cls: bool = False,
        frozen: bool = False,
        window_size: int | Sequence[int | None] | None = None,
        global_blocks: str | Sequence[int] = (),
        window_padding: str = 'masked',
    ) -> None:
        super().__init__()
        faults = window_faults(spec, window_size, global_blocks)
        _check_options(spec, drop_path_rate, checkpointing, return_cls, window_padding, faults)
        self.spec = spec
        self.checkpointing = checkpointing
        self.return_cls = return_cls
        self.frozen = frozen
        self.out_indices = resolve_indices(spec, out_indices)
        dim = spec.embed_dim
        slots = int(spec.cls_token) + spec.grid_size**2
        self.pos_embed = nn.Parameter(torch.zeros(1, slots, dim))
        if spec.cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if spec.num_register_tokens:
            self.register_tokens = nn.Parameter(torch.zeros(1, spec.num_register_tokens, dim))
        self.patch_embed = PatchEmbed(spec.patch_size, dim)
        rates = drop_path_rates(drop_path_rate, spec.depth)
        self.windows = resolve_windows(spec, window_size, global_blocks)
        self.blocks = nn.ModuleList(
            Block(spec, attention, rate, window, window_padding)
            for rate, window in zip(rates, self.windows, strict=True)
        )
        self.norm = make_norm(spec) if spec.final_norm else nn.Identity()
        self._set_trainable()

    @property
    def feature_info(self) -> FeatureInfo:
        """Indices, channels and strides of the output maps."""
        count = len(self.out_indices)
        return FeatureInfo(self.out_indices, (self.spec.embed_dim,) * count, (self.spec.patch_size,) * count)

    @property
    def depth(self) -> int:
        """Number of blocks; layer-wise learning-rate decay asks for it."""
        return self.spec.depth

    def forward(self, image_B3HW: torch.Tensor) -> list[FeatureMap]:
        """Maps of the chosen blocks.

        Args:
            image_B3HW: Normalised RGB image (B, 3, height, width); it is cast to the dtype of the trunk.

        Returns:
            A list of (B, C, ceil(height / patch), ceil(width / patch)) in the dtype of the trunk, or of
            (map, class token (B, C)) with `return_cls`.
        """
        outputs, grid = self.forward_tokens(image_B3HW)
        return [self._output(x_BNC, grid) for x_BNC in outputs]

    def forward_tokens(self, image_B3HW: torch.Tensor) -> tuple[list[torch.Tensor], tuple[int, int]]:
        """All tokens (B, P + h * w, C) after each chosen block, P prefix tokens first, and the grid (h, w)."""
        with torch.no_grad() if self.frozen else contextlib.nullcontext():
            x_BNC, grid = self._embed(image_B3HW)
            outputs = []
            for index, block in enumerate(self.blocks[: self.out_indices[-1] + 1]):
                x_BNC = self._run(block, x_BNC, grid, self.spec.num_prefix_tokens)
                if index in self.out_indices:  # stages of fewer than four blocks name one twice
                    outputs += [self.norm(x_BNC)] * self.out_indices.count(index)
        return outputs, grid

    def train(self, mode: bool = True) -> InternViT:
        """Sets the mode; a frozen backbone stays in eval mode."""
        super().train(mode and not self.frozen)
        return self

    def reset_parameters(self) -> None:
        """Initialises all parameters from scratch; published weights replace these values."""
        for module in self.modules():
            init_layer(module)
        for name in ('pos_embed', 'cls_token', 'register_tokens'):
            if hasattr(self, name):
                nn.init.trunc_normal_(getattr(self, name), std=INIT_STD)

    def _embed(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        maps_BChw = self.patch_embed(image_B3HW.to(self.patch_embed.proj.weight.dtype))
        grid = (maps_BChw.shape[-2], maps_BChw.shape[-1])
        x_BNC = maps_BChw.flatten(2).transpose(1, 2)
        positions = resize_position(self.pos_embed, int(self.spec.cls_token), grid).to(x_BNC.dtype)
        if self.spec.cls_token:
            x_BNC = torch.cat([self.cls_token.to(x_BNC.dtype).expand(len(x_BNC), -1, -1), x_BNC], dim=1)
        x_BNC = x_BNC + positions
        if self.spec.num_register_tokens:
            registers = self.register_tokens.to(x_BNC.dtype).expand(len(x_BNC), -1, -1)
            first = int(self.spec.cls_token)
            x_BNC = torch.cat([x_BNC[:, :first], registers, x_BNC[:, first:]], dim=1)
        return x_BNC, grid

    def _run(self, block: nn.Module, x_BNC: torch.Tensor, grid: tuple[int, int], prefix: int) -> torch.Tensor:
        """One block on `prefix` class and register tokens followed by those of the row-major grid (h, w)."""
        # Recomputing pays only where backward will pass, so never under no_grad.
        if self.checkpointing == 'full' and torch.is_grad_enabled():
            out: torch.Tensor = checkpoint(block, x_BNC, grid, prefix, use_reentrant=False)
        else:
            out = block(x_BNC, grid, prefix)
        return out

    def _output(self, x_BNC: torch.Tensor, grid: tuple[int, int]) -> FeatureMap:
        patches = x_BNC[:, self.spec.num_prefix_tokens:]
        map_BChw = patches.unflatten(1, grid).permute(0, 3, 1, 2)
        return (map_BChw, x_BNC[:, 0]) if self.return_cls else map_BChw

    def _set_trainable(self) -> None:
        unused = self.blocks[self.out_indices[-1] + 1:]
        for parameter in (self if self.frozen else unused).parameters():
            parameter.requires_grad_(False)
        self.train(self.training)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Drop probability of each block: `rate` times i / (depth - 1)."""
    return [float(value) for value in torch.linspace(0, rate, depth, device='cpu')]


def _check_options(
    spec: BackboneSpec, drop_path_rate: float, checkpointing: str, return_cls: bool, window_padding: str,
    others: Sequence[str],
) -> None:
    rules = [
        (0 <= drop_path_rate < 1, f'drop_path_rate {drop_path_rate} is outside [0, 1)'),
        (checkpointing in CHECKPOINTING, unknown('checkpointing', checkpointing, CHECKPOINTING)),
        (spec.cls_token or not return_cls, 'return_cls needs a variant with a class token'),
        (window_padding in PADDINGS, unknown('window_padding', window_padding, PADDINGS)),
    ]
    faults = [*(message for holds, message in rules if not holds), *others]
    if faults:
        raise UserError(problems(f'options of {spec.name}', faults))
