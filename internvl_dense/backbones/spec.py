"""What defines a backbone variant, and the numbers that follow from it."""

from __future__ import annotations

import dataclasses
from typing import Any

from internvl_dense.errors import UserError, problems
from internvl_dense.registry import unknown

NORMS = ('rms', 'layer')
MLPS = ('gelu', 'swiglu')
STAGES = 4  # dense heads read four maps, as UperNet and FPN expect

# ImageNet statistics times 255, RGB: the input normalisation of every InternViT.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclasses.dataclass(frozen=True)
class WeightsInfo:
    """Where the published weights of a variant are and what their files hold.

    Args:
        file: Name of the single-file checkpoint, or None where only a folder is published.
        hf_repo: Repository of the folder on the Hugging Face hub.
        licence: Licence that the publisher states.
        source: Where these facts are stated.
        size_gb: Size in GB (1e9 bytes).
        file_depth: Blocks in the file, where it has more than the variant uses.
        known_extras: Glob patterns of keys beside the trunk that are known and not used.
        note: What a user should know before choosing these weights.
    """

    file: str | None
    hf_repo: str
    licence: str
    source: str
    size_gb: float
    file_depth: int | None = None
    known_extras: tuple[str, ...] = ()
    note: str = ''


@dataclasses.dataclass(frozen=True)
class BackboneSpec:
    """Geometry of a plain vision transformer. All sizes are in pixels, tokens or channels.

    Args:
        name: Name of the variant.
        embed_dim: Width of the residual stream (D).
        depth: Number of blocks.
        num_heads: Attention heads; `embed_dim` is a multiple of it.
        image_size: Side of the square pre-training image in pixels; it sets the position grid.
        patch_size: Side of a patch in pixels.
        mlp_ratio: Hidden width of the MLP over `embed_dim`.
        mlp: 'gelu' (fc1, exact GELU, fc2) or 'swiglu' (fc1 gives gate and value).
        qkv_bias: Bias in the qkv projection.
        qk_norm: RMS normalisation of q and k over all heads together.
        norm: 'rms' or 'layer'.
        norm_eps: Epsilon of every norm.
        layer_scale_init: Initial layer scale.
        cls_token: Whether a class token stands before the patches.
        num_register_tokens: Register tokens between class token and patches; they have no position.
        final_norm: Whether output maps pass a last norm.
        probe_index: Block whose output linear probing reads (0-based); None means the last one.
        pixel_mean: Mean per RGB channel, for values in 0..255.
        pixel_std: Standard deviation per RGB channel, for values in 0..255.
        weights: The published weights, if there are any.
    """

    name: str
    embed_dim: int
    depth: int
    num_heads: int
    image_size: int
    patch_size: int = 14
    mlp_ratio: float = 4.0
    mlp: str = 'gelu'
    qkv_bias: bool = False
    qk_norm: bool = True
    norm: str = 'rms'
    norm_eps: float = 1e-6
    layer_scale_init: float = 0.1
    cls_token: bool = True
    num_register_tokens: int = 0
    final_norm: bool = False
    probe_index: int | None = None
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN
    pixel_std: tuple[float, float, float] = IMAGENET_STD
    weights: WeightsInfo | None = None

    def __post_init__(self) -> None:
        faults = list(_faults(self))
        if faults:
            raise UserError(problems(f'backbone {self.name!r}', faults))

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.embed_dim // self.num_heads

    @property
    def mlp_dim(self) -> int:
        """Hidden channels of the MLP."""
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def grid_size(self) -> int:
        """Side of the square grid of position embeddings, in patches."""
        return self.image_size // self.patch_size

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: class token and registers."""
        return int(self.cls_token) + self.num_register_tokens

    @property
    def stage_indices(self) -> tuple[int, ...]:
        """The four blocks after which dense heads read: i * (depth - 1) // 4 for i = 1..4."""
        return tuple(i * (self.depth - 1) // STAGES for i in range(1, STAGES + 1))

    @property
    def probe_block(self) -> int:
        """The block that linear probing reads."""
        return self.depth - 1 if self.probe_index is None else self.probe_index

    @property
    def dropped_blocks(self) -> tuple[int, ...]:
        """Blocks that the published file holds beyond the depth of this variant."""
        file_depth = self.weights.file_depth if self.weights else None
        return tuple(range(self.depth, file_depth or self.depth))

    def replace(self, **overrides: Any) -> BackboneSpec:
        """Returns a copy with some fields changed.

        A probe block beyond the depth of the copy becomes its last block.

        Raises:
            UserError: A name is not a field, or the result is inconsistent.
        """
        names = [field.name for field in dataclasses.fields(self)]
        wrong = [unknown('backbone option', key, names) for key in overrides if key not in names]
        if wrong:
            raise UserError(problems(f'backbone {self.name!r}', wrong))
        if overrides.get('depth', self.depth) <= self.probe_block:
            overrides.setdefault('probe_index', None)
        return dataclasses.replace(self, **overrides)


def _faults(spec: BackboneSpec) -> list[str]:
    rules = [
        (spec.embed_dim > 0 and spec.num_heads > 0 and spec.embed_dim % spec.num_heads == 0,
         f'embed_dim {spec.embed_dim} is not a multiple of num_heads {spec.num_heads}'),
        (spec.depth > 0, f'depth {spec.depth} must be at least 1'),
        (spec.patch_size > 0, f'patch_size {spec.patch_size} must be at least 1'),
        (spec.image_size >= spec.patch_size,
         f'image_size {spec.image_size} is smaller than patch_size {spec.patch_size}'),
        (spec.mlp_ratio > 0, f'mlp_ratio {spec.mlp_ratio} must be positive'),
        (spec.norm in NORMS, unknown('norm', spec.norm, NORMS)),
        (spec.mlp in MLPS, unknown('mlp', spec.mlp, MLPS)),
        (spec.num_register_tokens >= 0, f'num_register_tokens {spec.num_register_tokens} is negative'),
        (spec.probe_index is None or 0 <= spec.probe_index < spec.depth,
         f'probe_index {spec.probe_index} is outside 0..{spec.depth - 1}'),
    ]
    return [message for holds, message in rules if not holds]
