"""Necks on a plain ViT."""

from __future__ import annotations

from mmengine.registry import MODELS

from internvl_dense.dense.pyramid import ViTFeaturePyramid

MODELS.register_module(module=ViTFeaturePyramid)
