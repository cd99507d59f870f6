"""Results of a segmentation model as files: masks that hold class ids, and overlays with a legend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from internvl_dense.data.drawing import WHITE, Ids, Picture, overlay, with_legend, write_palette_png
from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.data.result_folder import MASKS, OVERLAYS, ResultFolder, write_picture
from internvl_dense.data.whole_files import write_whole

MIN_LEGEND_PX = 240  # room for one long class name
BLACK = (0, 0, 0)


class PredictionFolder(ResultFolder):
    """`masks/NAME.png` and `overlays/NAME.jpg` of each image, see `ResultFolder`.

    Args:
        folder: Made by `open`.
        policy: Meaning of the ids.
        opacity: Of the colours in overlays, 0..1.
    """

    kinds = (MASKS, OVERLAYS)

    def __init__(self, folder: Path, policy: LabelPolicy, opacity: float = 0.5) -> None:
        super().__init__(folder)
        self.policy = policy
        self.opacity = opacity

    def save(self, name: str, image_rgb: Picture, result: npt.NDArray[np.uint8]) -> None:
        """Writes mask and overlay.

        The mask holds raw ids, those of label files of this policy: with `reduce_zero_label` class k is written as
        k + 1 and 0 does not occur.

        Args:
            name: From `find_images`.
            image_rgb: (H, W, 3) uint8.
            result: (H, W) uint8 training ids.
        """
        mask, picture = self.paths(name)
        first = self.policy.first_raw_id
        palette = (BLACK,) * first + self.policy.palette
        raw = (result + first).astype(np.uint8)  # fits: a policy leaves room for 255
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_whole(mask, lambda part: write_palette_png(part, raw, palette))
        write_picture(picture, draw_prediction(image_rgb, result, self.policy, self.opacity))


def draw_prediction(image_rgb: Picture, ids: Ids, policy: LabelPolicy, opacity: float) -> Picture:
    """The image under its classes, with a legend of those that occur. Narrow images get a white margin on the right."""
    mixed = overlay(image_rgb, ids, policy.palette, opacity)
    margin = max(0, MIN_LEGEND_PX - mixed.shape[1])
    canvas = np.pad(mixed, ((0, 0), (0, margin), (0, 0)), constant_values=WHITE[0])
    present = np.unique(ids).tolist()
    return with_legend(canvas, [policy.classes[i] for i in present], [policy.palette[i] for i in present])
