"""The one way to a backbone: a name, and optionally weights."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import torch

from internvl_dense.backbones.internvit import InternViT
from internvl_dense.backbones.locate import find_weights
from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.backbones.variants import VARIANTS

logger = logging.getLogger('internvl_dense')


def list_backbones(pattern: str = '*') -> list[str]:
    """Names of the registered variants that match a shell-style pattern."""
    return VARIANTS.list(pattern)


def resolve_spec(
    name: str, *, patch_size: int | None = None, image_size: int | None = None, **overrides: Any
) -> BackboneSpec:
    """The spec of a variant with overrides.

    Args:
        name: A registered variant.
        patch_size: Patch in pixels; the kernel is resampled, the grid of positions stays unless `image_size` is given.
        image_size: Side in pixels for which positions are stored; any other size is resampled at run time.
        overrides: Fields of `BackboneSpec`.

    Raises:
        UserError: Unknown variant or option, or an inconsistent result.
    """
    spec = VARIANTS.get(name).replace(**overrides)
    patch = patch_size or spec.patch_size
    return spec.replace(patch_size=patch, image_size=image_size or spec.grid_size * patch)


def create_backbone(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    out_indices: str | Sequence[int] = 'stages',
    attention: str = 'auto',
    patch_size: int | None = None,
    image_size: int | None = None,
    frozen: bool = False,
    drop_path_rate: float = 0.0,
    checkpointing: str = 'none',
    return_cls: bool = False,
    window_size: int | Sequence[int | None] | None = None,
    global_blocks: str | Sequence[int] = (),
    window_padding: str = 'masked',
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    allow_missing: Sequence[str] = (),
    **overrides: Any,
) -> InternViT:
    """Builds a backbone and loads its weights.

    The module maps normalised RGB images (B, 3, H, W) to a list of maps (B, C, ceil(H / patch), ceil(W / patch)). It is
    built without memory and filled once, so the parameters never exist twice.

    Args:
        name: A registered variant, see `list_backbones`.
        weights: A checkpoint file or folder in any known layout; 'published' for the published file of the variant,
            looked for in $INTERNVL_DENSE_WEIGHTS and ./pretrained; 'random' or None for random values.
        out_indices: 'stages' (four blocks over the depth), 'last', 'probe' (for linear probing) or 0-based numbers.
        attention: 'auto', 'sdpa', 'eager' or 'flash'.
        patch_size: Patch in pixels; other than the variant's, the kernel is resampled.
        image_size: Side in pixels for which position embeddings are stored.
        frozen: No gradients, no drop path, eval mode kept.
        drop_path_rate: Stochastic depth of the last block, growing linearly from 0.
        checkpointing: 'none' or 'full' (recompute each block in backward).
        return_cls: Return (map, class token (B, C)) for each output.
        window_size: Side in patches of the attention windows, for all blocks or in a list with one entry for each; None
            is global attention. ViTDet's scheme is `window_size=16, global_blocks='stages'`.
        global_blocks: Blocks without window beside one `window_size`: 'stages' (their last blocks) or block numbers.
        window_padding: 'masked', or 'zeros' as in the published detector; see `InternViT`.
        device: Where the parameters are; 'meta' builds shapes only.
        dtype: Dtype of the trunk; fp32 if None.
        allow_missing: Glob patterns of keys that the checkpoint may lack.
        overrides: Fields of `BackboneSpec`: embed_dim, depth, num_heads, mlp_ratio, qkv_bias, qk_norm, norm, ...

    Raises:
        UserError: Unknown variant, option or kernel, or weights that do not fit.
    """
    spec = resolve_spec(name, patch_size=patch_size, image_size=image_size, **overrides)
    with torch.device('meta'):
        module = InternViT(
            spec, out_indices=out_indices, attention=attention, drop_path_rate=drop_path_rate,
            checkpointing=checkpointing, return_cls=return_cls, frozen=frozen,
            window_size=window_size, global_blocks=global_blocks, window_padding=window_padding,
        ).to(dtype or torch.get_default_dtype())
    target = torch.device(device) if device is not None else torch.get_default_device()
    if target.type != 'meta':
        fill_weights(module.to_empty(device=target), weights, allow_missing)
    return module


def fill_weights(
    module: InternViT, weights: str | os.PathLike[str] | None, allow_missing: Sequence[str] = ()
) -> pathlib.Path | None:
    """Loads weights into the module, or draws random values; logs what it did.

    Args:
        module: The backbone to fill.
        weights: As for `create_backbone`.
        allow_missing: Glob patterns of keys that the file may lack.

    Returns:
        The file or folder that was read, or None for random values.

    Raises:
        UserError: The weights are not there or do not fit.
    """
    path = find_weights(module.spec, weights)
    if path is None:
        module.reset_parameters()
        logger.info('%s: RANDOM weights, no file was loaded', module.spec.name)
        return None
    from internvl_dense.backbones.checkpoint import load_backbone_weights

    report = load_backbone_weights(module, path, allow_missing=allow_missing)
    logger.info('%s', report)
    return path
