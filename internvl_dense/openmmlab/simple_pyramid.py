"""ViTDet's parts as types of a config."""

from __future__ import annotations

from mmengine.registry import MODELS

from internvl_dense.dense.pyramid import ChannelLayerNorm
from internvl_dense.dense.simple_pyramid import SimpleFeaturePyramid

NORM = 'LN2d'  # mmdet's name for a layer norm over the channels of a map


def register() -> None:
    """Registers the neck, and the norm of ViTDet's heads."""
    MODELS.register_module(module=SimpleFeaturePyramid)
    MODELS.register_module(name=NORM, module=ChannelLayerNorm)
