"""ViT-Adapter around InternViT as an OpenMMLab backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS

from internvl_dense.backbones.internvit import FeatureMap
from internvl_dense.dense.adapter_options import LEVELS, AdapterOptions
from internvl_dense.dense.vit_adapter import InternViTAdapter
from internvl_dense.openmmlab.backbones import InternViTBackbone, to_head_dtype
from internvl_dense.training.numerics import Numerics


@MODELS.register_module(name='InternViTAdapter')
class InternViTAdapterBackbone(InternViTAdapter, InternViTBackbone):
    """`InternViTAdapter` for a config: `backbone=dict(type='InternViTAdapter', variant=..., frozen=True)`.

    `init_weights()` fills the trunk from `weights` and draws the adapter. The adapter holds fp32 weights, as heads do;
    `dtype` is that of the trunk. Checkpoints hold the adapter also where they leave a frozen trunk out. No pyramid is
    needed behind it: its four maps have strides of 4, 8, 16 and 32.

    Args:
        variant: As for `InternViT`.
        out_indices, interaction_indexes, mode, vit_features, published, conv_inplane, n_points, deform_num_heads,
            deform_ratio, with_cffn, cffn_ratio, init_values, use_extra_extractor, use_final_norm, deform_attention:
            As for `internvl_dense.dense.InternViTAdapter`.
        drop_path_rate: Of the trunk, growing linearly with the depth, and of every convolutional MLP.
        kwargs: As for `InternViT`: weights, dtype, frozen, checkpointing, save_frozen, patch_size, ...

    Raises:
        UserError: Unknown variant or option, or options that do not fit each other.
    """

    def __init__(
        self,
        variant: str,
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
        drop_path_rate: float = 0.0,
        deform_attention: str = 'auto',
        **kwargs: Any,
    ) -> None:
        InternViTBackbone.__init__(self, variant, out_indices='last', drop_path_rate=drop_path_rate, **kwargs)
        self._add_adapter(AdapterOptions(
            out_indices, interaction_indexes, mode, vit_features, published, conv_inplane, n_points, deform_num_heads,
            deform_ratio, with_cffn, cffn_ratio, init_values, use_extra_extractor, use_final_norm, drop_path_rate,
            deform_attention,
        ).resolved(self))

    def init_weights(self) -> None:
        """Fills the trunk from `weights`, or at random, and draws the adapter.

        Raises:
            UserError: As for `InternViT`.
        """
        InternViTBackbone.init_weights(self)
        self.reset_adapter()

    def forward(self, image_B3HW: torch.Tensor) -> list[FeatureMap]:
        """The chosen maps, in fp32.

        Raises:
            UserError: The parameters were never filled.
        """
        self.require_filled()
        return [to_head_dtype(map_BChw) for map_BChw in InternViTAdapter.forward(self, image_B3HW)]


def complete_backbone(backbone: Mapping[str, Any], numerics: Numerics) -> dict[str, Any]:
    """The config of a backbone; an adapter that leaves `published` open gets what the numerics say."""
    kind = backbone['type']
    cls = kind if isinstance(kind, type) else MODELS.get(kind)
    if isinstance(cls, type) and issubclass(cls, InternViTAdapterBackbone):
        return {'published': numerics.published_adapter, **backbone}
    return dict(backbone)
