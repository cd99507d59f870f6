"""Detectors: mmdet's own, sized from their backbone, with predictions and losses in fp32."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmdet.models import dense_heads, detectors, roi_heads
from mmengine.registry import MODELS
from torch import nn

from internvl_dense.openmmlab.adapters import complete_backbone
from internvl_dense.openmmlab.detector_configs import complete_detector
from internvl_dense.training.numerics import FAST, get_numerics
from internvl_dense.training.precision import HEAD_DTYPE

Config = dict[str, Any]
# A row makes mmdet's detector of that name available as `Dense<name>`.
NAMES = ('FasterRCNN', 'MaskRCNN', 'CascadeRCNN', 'RetinaNet', 'FCOS', 'DeformableDETR', 'DINO')
# Modules whose outputs are scores, box offsets and mask logits.
PREDICTORS = (dense_heads.RPNHead, dense_heads.AnchorHead, dense_heads.AnchorFreeHead, roi_heads.BBoxHead,
              roi_heads.FCNMaskHead)


class SizedDetector(nn.Module):
    """Mixin before one of mmdet's detectors: channels and strides come from the backbone's `feature_info`.

    Autocast may run the layers in bf16; what the heads predict leaves them in fp32, because a box coordinate of 1,000
    px in bf16 is good to 4 px.

    Args:
        backbone: Of type InternViTPyramid, InternViTAdapter or InternViT.
        neck: As in mmdet; `in_channels` may be left out.
        num_classes: Of every head that tells classes apart.
        numerics: A row of `internvl_dense.training.numerics`.
        kwargs: As for mmdet's class.
    """

    def __init__(
        self, backbone: Config, neck: Config | None = None, num_classes: int | None = None, numerics: str = FAST.name,
        **kwargs: Any,
    ) -> None:
        chosen = get_numerics(numerics)
        backbone = complete_backbone(backbone, chosen)
        with torch.device('meta'):  # shapes only; the real one is built by the parent
            info = MODELS.build(backbone).feature_info
        own = copy.deepcopy({'neck': neck, **kwargs})  # mmdet writes into what it is given, and a config builds again
        super().__init__(backbone=backbone, **complete_detector(own, info, num_classes))
        self.numerics = chosen
        for module in self.modules():
            if isinstance(module, PREDICTORS):
                module.register_forward_hook(_to_fp32)


def _to_fp32(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.to(HEAD_DTYPE) if output.is_floating_point() else output
    if isinstance(output, (list, tuple)):
        return type(output)(_to_fp32(_module, _inputs, value) for value in output)
    return output


def register() -> None:
    """Registers every row of the table in mmengine's root registry."""
    for name in NAMES:
        base = getattr(detectors, name)
        cls = type(f'Dense{name}', (SizedDetector, base), {
            '__doc__': f"mmdet's {name}, see `SizedDetector`.", '__module__': __name__})
        globals()[cls.__name__] = cls  # where pickle looks for it
        MODELS.register_module(name=cls.__name__, module=cls)
