"""What is worth knowing about mmcv pipelines: names of steps, errors, images as RGB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

# What mmcv's loader and the transforms behind it raise for a file they cannot use.
PIPELINE_ERRORS = (OSError, AssertionError, ValueError, cv2.error)


def step_type(step: Mapping[str, Any]) -> str:
    """Type of a step without its scope: 'LoadAnnotations' for 'mmseg.LoadAnnotations' or the class itself."""
    kind = step.get('type', '')
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def rgb(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of what mmcv loads: BGR, for some configs grey, alpha or float."""
    colour = image if image.ndim == 3 else image[..., None]
    colour = np.repeat(colour, 3, axis=-1) if colour.shape[-1] < 3 else colour[..., 2::-1]
    return np.ascontiguousarray(np.clip(colour, 0, 255), dtype=np.uint8)
