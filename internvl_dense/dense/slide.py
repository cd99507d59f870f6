"""Sliding-window inference in batches of windows.

Suffixes: B batch, C classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from internvl_dense.errors import UserError

Window = tuple[int, int, int, int]


def slide_windows(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> list[Window]:
    """Windows (y1, y2, x1, x2) that cover an image, row by row.

    Args:
        size: Height and width of the image in pixels.
        crop: Height and width of a window; an image smaller than it gets one window of its own size.
        stride: Vertical and horizontal step; the last window is shifted back inside the image.

    Raises:
        UserError: A step is below 1 or above the crop, which would leave pixels without a prediction.
    """
    if not all(1 <= step <= side for step, side in zip(stride, crop, strict=True)):
        raise UserError(f'stride {tuple(stride)} of the sliding window must be from 1 to its crop size {tuple(crop)}')

    def starts(length: int, window: int, step: int) -> list[int]:
        last = max(length - window, 0)
        return [min(i * step, last) for i in range((last + step - 1) // step + 1)]

    height, width = min(crop[0], size[0]), min(crop[1], size[1])
    return [
        (y, y + height, x, x + width)
        for y in starts(size[0], crop[0], stride[0])
        for x in starts(size[1], crop[1], stride[1])
    ]


def slide_inference(
    image_B3HW: torch.Tensor,
    predict: Callable[[torch.Tensor], torch.Tensor],
    num_classes: int,
    crop: tuple[int, int],
    stride: tuple[int, int],
    max_windows: int = 8,
) -> torch.Tensor:
    """Averages the logits of overlapping windows.

    Args:
        image_B3HW: Normalised images of one size.
        predict: Maps window images (n, 3, h, w) to logits (n, C, h, w).
        num_classes: C.
        crop: Height and width of a window in pixels.
        stride: Vertical and horizontal step in pixels.
        max_windows: Windows in one forward pass, the cap on memory.

    Returns:
        Logits (B, C, H, W) in fp32, the mean over the windows that cover a pixel.

    Raises:
        UserError: The windows would leave gaps.
    """
    batch, _, height, width = image_B3HW.shape
    windows = slide_windows((height, width), crop, stride)
    jobs = [(b, window) for window in windows for b in range(batch)]
    sums_BCHW = image_B3HW.new_zeros(batch, num_classes, height, width, dtype=torch.float32)
    counts_HW = image_B3HW.new_zeros(height, width, dtype=torch.float32)
    for y1, y2, x1, x2 in windows:
        counts_HW[y1:y2, x1:x2] += 1
    for first in range(0, len(jobs), max_windows):
        chunk = jobs[first:first + max_windows]
        crops = torch.stack([image_B3HW[b, :, y1:y2, x1:x2] for b, (y1, y2, x1, x2) in chunk])
        for (b, (y1, y2, x1, x2)), logits_Chw in zip(chunk, predict(crops), strict=True):
            sums_BCHW[b, :, y1:y2, x1:x2] += logits_Chw
    return sums_BCHW.div_(counts_HW)
