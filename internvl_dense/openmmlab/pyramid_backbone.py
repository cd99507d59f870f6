"""InternViT with its pyramid as one backbone, so that any neck of a detector fits behind it."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import MODELS

from internvl_dense.backbones.internvit import FeatureInfo, FeatureMap
from internvl_dense.dense.pyramid import ViTFeaturePyramid, pyramid_info
from internvl_dense.errors import UserError
from internvl_dense.openmmlab.backbones import InternViTBackbone


@MODELS.register_module(name='InternViTPyramid')
class InternViTPyramidBackbone(InternViTBackbone):
    """`InternViT` and `ViTFeaturePyramid` in one module, with the keys of the published detector (`blocks.*, up1.*`).

    The maps have strides of a quarter, half, one and two times the patch. The pyramid is trained also beside a frozen
    trunk.

    Args:
        variant: As for `InternViT`.
        out_indices: 'last' spreads the last map over all levels, as the published detector does; 'stages' gives each
            level a map of its own.
        final_norm: As for `ViTFeaturePyramid`.
        ceil_mode: As for `ViTFeaturePyramid`.
        levels: Which of the four maps to give, 0 being the finest.
        kwargs: As for `InternViT`.

    Raises:
        UserError: As `InternViT`, or `return_cls` is asked for.
    """

    pyramid: ViTFeaturePyramid

    def __init__(
        self, variant: str, *, out_indices: Any = 'last', final_norm: bool = False, ceil_mode: bool = False,
        levels: tuple[int, ...] = (0, 1, 2, 3), **kwargs: Any,
    ) -> None:
        if kwargs.get('return_cls'):
            raise UserError('InternViTPyramid gives maps only; InternViT with return_cls=True has class tokens')
        super().__init__(variant, out_indices=out_indices, **kwargs)
        pyramid = ViTFeaturePyramid(self.spec.embed_dim, final_norm, ceil_mode)
        for name, branch in pyramid.named_children():
            self.add_module(name, branch)
        # Not a submodule: its branches are this module's own, under the published names.
        self.__dict__['pyramid'] = pyramid
        self.levels = tuple(levels)

    @property
    def feature_info(self) -> FeatureInfo:
        """Indices, channels and strides of the chosen maps."""
        info = pyramid_info(super().feature_info)
        return FeatureInfo(
            tuple(info.indices[level] for level in self.levels), tuple(info.channels[level] for level in self.levels),
            tuple(info.strides[level] for level in self.levels))

    def init_weights(self) -> None:
        """Fills the trunk from `weights` and draws the pyramid."""
        super().init_weights()
        self.pyramid.init_weights()

    def forward(self, image_B3HW: torch.Tensor) -> list[FeatureMap]:
        """The chosen maps (B, C, h, w), in fp32."""
        maps = self.pyramid([_map_of(output) for output in super().forward(image_B3HW)])
        return [maps[level] for level in self.levels]


def _map_of(output: FeatureMap) -> torch.Tensor:
    assert isinstance(output, torch.Tensor)
    return output
