"""ViT-Adapter around an InternViT: four maps at strides 4, 8, 16 and 32.

After Chen et al., "Vision Transformer Adapter for Dense Predictions", 2023, in the form published with InternViT-6B.

Suffixes: B batch, N tokens, C channels, h x w cells of a map.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from internvl_dense.backbones.internvit import FeatureInfo, FeatureMap, InternViT
from internvl_dense.backbones.layers import INIT_STD, init_layer
from internvl_dense.backbones.position import resize_position
from internvl_dense.backbones.trunk_keys import TRUNK_PARTS, is_trunk_key, trunk_parameters
from internvl_dense.dense.adapter_blocks import (
    Extractor,
    Injector,
    Interaction,
    MSDeformAttn,
    init_part,
    tokens_to_map,
)
from internvl_dense.dense.adapter_options import LEVELS, AdapterOptions
from internvl_dense.dense.grids import Grid, resample, sampling
from internvl_dense.dense.pyramid import ChannelLayerNorm
from internvl_dense.dense.spatial_prior import STRIDES, SpatialPrior

EXTRA_EXTRACTORS = 2  # behind the last run, as published


class InternViTAdapter(InternViT):
    """An InternViT whose blocks exchange tokens with a convolutional branch.

    Any height and width is accepted. Maps have ceil(height / stride) x ceil(width / stride) cells for strides 4, 8, 16
    and 32 with any patch; places are matched in pixels of the image. Parameter names are the published ones, and those
    of the trunk are as in `InternViT`.

    Args:
        backbone: Taken over with its parameters, device and options (frozen, checkpointing, windows), and empty
            afterwards. Its blocks see its class token, injectors leave it alone; a variant with `cls_token=False` has
            none. A frozen one is not trained, but in mode 'interact' gradients pass through it.
        out_indices: Which of the four maps to give, 0 being the finest. No parameter is made that none of them needs.
        interaction_indexes: [first, last] block of each run between two exchanges; by default four runs of equal
            length. Blocks behind the last run are neither computed nor trained.
        mode: 'interact' (injectors and extractors), or 'extract': the trunk runs without gradients and extractors read
            its tokens, as in the dense-prediction code of DINOv3; there are no injectors then.
        vit_features: What is added to the maps: 'last' (tokens after the last run, to all of them, as published for
            InternViT), 'stages' (those after runs 1 to 4, as in the original ViT-Adapter) or 'none'.
        published: Repeat the published class where it differs: no class token, and positions that are not resampled
            where the number of tokens is that of the square they were made for.
        conv_inplane: Channels of the stem of the convolutional branch.
        n_points: Places that deformable attention reads on each map for each head.
        deform_num_heads: Its heads; by default those of the variant.
        deform_ratio: Its channels over those of the trunk.
        with_cffn: Whether extractors end with a convolutional MLP.
        cffn_ratio: Its hidden channels over those of the trunk.
        init_values: Initial scale of what injectors add.
        use_extra_extractor: Two more extractors behind the last run.
        use_final_norm: A channel norm on each map.
        drop_path_rate: Of the convolutional MLPs; by default the highest rate of the trunk.
        deform_attention: Name of the kernel, see `internvl_dense.ops.deform_attn`.

    Raises:
        UserError: Options that do not fit each other or the trunk.
    """

    spm: SpatialPrior
    level_embed: torch.Tensor
    interactions: nn.ModuleList
    up: nn.ConvTranspose2d

    def __init__(
        self,
        backbone: InternViT,
        *,
        out_indices: Sequence[int] = LEVELS,
        interaction_indexes: Sequence[Sequence[int]] | None = None,
        mode: str = 'interact',
        vit_features: str = 'last',
        published: bool = False,
        conv_inplane: int = 64,
        n_points: int = 4,
        deform_num_heads: int | None = None,
        deform_ratio: float = 0.25,
        with_cffn: bool = True,
        cffn_ratio: float = 0.25,
        init_values: float = 0.0,
        use_extra_extractor: bool = True,
        use_final_norm: bool = True,
        drop_path_rate: float | None = None,
        deform_attention: str = 'auto',
    ) -> None:
        options = AdapterOptions(
            out_indices, interaction_indexes, mode, vit_features, published, conv_inplane, n_points, deform_num_heads,
            deform_ratio, with_cffn, cffn_ratio, init_values, use_extra_extractor, use_final_norm, drop_path_rate,
            deform_attention,
        ).resolved(backbone)
        nn.Module.__init__(self)
        _take_over(self, backbone)
        self._add_adapter(options)
        self.reset_adapter()

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels and strides of the chosen maps; the indices are the last block of each interaction."""
        levels = self.options.out_indices
        return FeatureInfo(self.out_indices, (self.spec.embed_dim,) * len(levels), tuple(STRIDES[i] for i in levels))

    def forward(self, image_B3HW: torch.Tensor) -> list[FeatureMap]:
        """The chosen maps.

        Args:
            image_B3HW: Normalised RGB image (B, 3, height, width).

        Returns:
            A list of (B, C, ceil(height / stride), ceil(width / stride)) in the dtype of the adapter's parameters.
        """
        priors = self.spm(image_B3HW.to(self.level_embed.dtype))
        grids = {level: Grid(prior.shape[-2], prior.shape[-1], STRIDES[level]) for level, prior in priors.items()}
        with self._trunk_grad():
            x_BNC, (height, width) = self._embed(image_B3HW)
        grid = Grid(height, width, self.spec.patch_size)
        c_BNC, features = self._interact(x_BNC, self._spatial_tokens(priors), grid, grids)
        return self._maps(priors.get(0), c_BNC, features, grid, grids)

    def train(self, mode: bool = True) -> InternViTAdapter:
        """Sets the mode; a frozen trunk stays in eval mode, the adapter does not."""
        nn.Module.train(self, mode)
        if self.frozen:
            for name, part in self.named_children():
                part.train(mode and name not in TRUNK_PARTS)
        return self

    def reset_parameters(self) -> None:
        """Initialises trunk and adapter from scratch."""
        for name, module in self.named_modules():
            if is_trunk_key(name):
                init_layer(module)
        for name, parameter in trunk_parameters(self).items():
            if '.' not in name:
                nn.init.trunc_normal_(parameter, std=INIT_STD)
        self.reset_adapter()

    def reset_adapter(self) -> None:
        """Initialises the adapter as published, and leaves the trunk as it is."""
        modules = [module for name, module in self.named_modules() if name and not is_trunk_key(name)]
        for module in modules:
            init_part(module)
        for module in modules:  # afterwards: it holds linear layers
            if isinstance(module, MSDeformAttn):
                module.reset_parameters()
        nn.init.normal_(self.level_embed)

    def _add_adapter(self, options: AdapterOptions) -> None:
        """Adds the parts of the adapter, in fp32, on the device of the trunk and with unset values."""
        self.options = options
        self.out_indices = tuple(last for _, last in options.runs)  # of blocks, as in every InternViT
        if options.published:
            del self.cls_token
        self.prefix = 0 if options.published else self.spec.num_prefix_tokens
        device, dim = self.pos_embed.device, self.spec.embed_dim
        self.level_embed = nn.Parameter(torch.empty(len(LEVELS) - 1, dim, device=device))
        with torch.device('meta'):
            parts = dict(_parts(dim, options))
        for name, part in parts.items():
            self.add_module(name, part.to_empty(device=device))
        self._set_trainable()

    def _set_trainable(self) -> None:
        unused = self.blocks[self.out_indices[-1] + 1:]
        for parameter in trunk_parameters(self).values() if self.frozen else unused.parameters():
            parameter.requires_grad_(False)
        self.train(self.training)

    def _trunk_grad(self) -> contextlib.AbstractContextManager[Any]:
        return torch.no_grad() if self.options.mode == 'extract' else contextlib.nullcontext()

    def _embed(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        if not self.options.published:
            return super()._embed(image_B3HW)
        maps_BChw = self.patch_embed(image_B3HW.to(self.patch_embed.proj.weight.dtype))
        grid, x_BNC = (maps_BChw.shape[-2], maps_BChw.shape[-1]), maps_BChw.flatten(2).transpose(1, 2)
        positions: torch.Tensor = self.pos_embed
        if positions.shape[1] - 1 != x_BNC.shape[1]:  # the published class takes any shape with the right count
            positions = resize_position(positions, 1, grid)
        return x_BNC + positions[:, 1:].to(x_BNC.dtype), grid

    def _spatial_tokens(self, priors: dict[int, torch.Tensor]) -> torch.Tensor:
        """The tokens of all levels but the finest, each with the embedding of its level."""
        tokens = [priors[level].flatten(2).transpose(1, 2) + self.level_embed[level - 1]
                  for level in self.options.token_levels]
        return torch.cat(tokens, dim=1)

    def _interact(
        self, x_BNC: torch.Tensor, c_BNC: torch.Tensor, grid: Grid, grids: dict[int, Grid],
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Runs blocks and exchanges; returns the spatial tokens and the patch tokens after each run."""
        own = [grids[level] for level in self.options.token_levels]
        precision = torch.promote_types(self.level_embed.dtype, torch.float32)
        to_trunk = sampling([grid], own, c_BNC.device, precision)
        to_adapter = sampling(own, [grid], c_BNC.device, precision)
        shapes = [one.shape for one in own]
        features = []
        for (first, last), interaction in zip(self.options.runs, self.interactions, strict=True):
            assert isinstance(interaction, Interaction)
            if interaction.has_injector:
                patches = self._call(interaction.injector, x_BNC[:, self.prefix:], c_BNC, to_trunk)
                x_BNC = torch.cat([x_BNC[:, :self.prefix], patches], dim=1) if self.prefix else patches
            with self._trunk_grad():
                for block in self.blocks[first: last + 1]:
                    x_BNC = self._run(block, x_BNC, grid.shape, self.prefix)
            patches = x_BNC[:, self.prefix:]
            for extractor in interaction.extractors:
                c_BNC = self._call(extractor, c_BNC, patches, to_adapter, shapes)
            features.append(patches)
        return c_BNC, features if self.options.vit_features == 'stages' else features[-1:]

    def _call(self, module: nn.Module, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        """One exchange, computed again in backward where that was asked for and a gradient flows."""
        if self.checkpointing == 'full' and torch.is_grad_enabled():
            out: torch.Tensor = checkpoint(module, tokens, *rest, use_reentrant=False)
        else:
            out = module(tokens, *rest)
        return out

    def _maps(
        self, finest: torch.Tensor | None, c_BNC: torch.Tensor, features: list[torch.Tensor], grid: Grid,
        grids: dict[int, Grid],
    ) -> list[FeatureMap]:
        levels, options = self.options.token_levels, self.options
        parts = c_BNC.split([grids[level].num_cells for level in levels], dim=1)
        maps = {level: tokens_to_map(part, grids[level].shape) for level, part in zip(levels, parts, strict=True)}
        if finest is not None:  # a transposed convolution doubles a side that was rounded up
            maps[0] = self.up(maps[1])[:, :, :grids[0].height, :grids[0].width] + finest
        if options.vit_features != 'none':
            trunk = [tokens_to_map(self.norm(x_BNC).to(c_BNC.dtype), grid.shape) for x_BNC in features]
            for level in options.out_indices:
                own = trunk[level if options.vit_features == 'stages' else 0]
                maps[level] = maps[level] + resample(own, grid, grids[level])
        chosen = {level: maps[level] for level in options.out_indices}
        if options.use_final_norm:
            return [self.get_submodule(f'norm{level + 1}')(map_BChw) for level, map_BChw in chosen.items()]
        return list(chosen.values())


def _take_over(adapter: InternViT, backbone: InternViT) -> None:
    """Moves parameters, modules and options of a backbone, which is left without them."""
    for name, value in vars(backbone).items():
        if not name.startswith('_') and name != 'training':
            setattr(adapter, name, value)
    for name, parameter in list(backbone.named_parameters(recurse=False)):
        adapter.register_parameter(name, parameter)
        delattr(backbone, name)
    for name, module in list(backbone.named_children()):
        adapter.add_module(name, module)
        delattr(backbone, name)


def _parts(dim: int, options: AdapterOptions) -> Iterator[tuple[str, nn.Module]]:
    """The modules of an adapter by name, without the trunk."""
    wanted, finest = options.out_indices, 0 in options.out_indices
    yield 'spm', SpatialPrior(options.conv_inplane, dim, (*((0,) if finest else ()), *options.token_levels))
    count = len(options.runs)
    extras = [1] * (count - 1) + [1 + EXTRA_EXTRACTORS * options.use_extra_extractor]
    yield 'interactions', nn.ModuleList(_interaction(dim, options, extractors) for extractors in extras)
    if finest:
        yield 'up', nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2)
    if options.use_final_norm:
        for level in wanted:
            yield f'norm{level + 1}', ChannelLayerNorm(dim)


def _interaction(dim: int, options: AdapterOptions, extractors: int) -> Interaction:
    heads, rate = options.deform_num_heads, options.drop_path_rate
    assert heads is not None and rate is not None

    def attention(levels: int) -> MSDeformAttn:
        return MSDeformAttn(dim, heads, levels, options.n_points, options.deform_ratio, options.deform_attention)

    injector = None
    if options.mode == 'interact':
        injector = Injector(dim, attention(len(options.token_levels)), options.init_values)
    hidden = int(dim * options.cffn_ratio) if options.with_cffn else None
    return Interaction(injector, [Extractor(dim, attention(1), hidden, rate) for _ in range(extractors)])
