"""Transforms that the published test pipelines need and mmseg lacks."""

from __future__ import annotations

from typing import Any

import mmcv
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SETRResize(BaseTransform):
    """Test-time resize whose short side is at least the crop, with no cap on the long side.

    The short side becomes max(crop height, min(scale)); the long side follows the aspect ratio. A plain keep-ratio
    resize caps the long side, which makes elongated images smaller than one window.

    Args:
        scale: (long, short) side in pixels; only the smaller number counts.
        crop_size: Height and width of a sliding window in pixels.
    """

    def __init__(self, scale: tuple[int, int], crop_size: tuple[int, int]) -> None:
        self.scale = scale
        self.crop_size = crop_size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resizes `img`, and sets `img_shape`, `scale_factor` (width, height) and `keep_ratio`."""
        height, width = results['img'].shape[:2]
        short = max(self.crop_size[0], min(self.scale))
        long = short * height / width if height > width else short * width / height
        image = mmcv.imrescale(results['img'], (int(long + 0.5), short))
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        results['scale_factor'] = (image.shape[1] / width, image.shape[0] / height)
        results['keep_ratio'] = True
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(scale={self.scale}, crop_size={self.crop_size})'
