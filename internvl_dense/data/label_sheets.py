"""Contact sheets of images beside their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from internvl_dense.data.drawing import WHITE, Ids, Picture, contact_sheet, overlay, with_legend
from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.errors import UserError

COLUMNS = 2  # samples beside each other
SAMPLES = 12  # on a sheet
HEIGHT_PX = 220  # of a picture


@dataclass(frozen=True)
class LabelledImage:
    """One sample.

    Args:
        name: Shown above it.
        image_rgb: (H, W, 3) uint8.
        ids: (h, w) training ids. Test pipelines resize images but not labels; the image is then drawn at their size.
    """

    name: str
    image_rgb: Picture
    ids: Ids


def label_sheet(samples: Sequence[LabelledImage], policy: LabelPolicy, opacity: float = 0.6) -> Picture:
    """Image | image under its classes, two samples a row, above a legend of the classes that occur.

    Ignored pixels show the image.

    Raises:
        UserError: No samples, or ids that are neither a class nor ignored.
    """
    cells = [_cell(sample, policy, opacity) for sample in samples]
    blank = np.full((cells[0].shape[0] if cells else 1, 1, 3), WHITE[0], dtype=np.uint8)
    cells += [blank] * (-len(cells) % COLUMNS)
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    sheet = contact_sheet(rows, [''] * COLUMNS)
    present = sorted({int(i) for sample in samples for i in np.unique(sample.ids)} - {policy.ignore_index})
    return with_legend(sheet, [policy.classes[i] for i in present], [policy.palette[i] for i in present])


def _cell(sample: LabelledImage, policy: LabelPolicy, opacity: float) -> Picture:
    height, width = sample.ids.shape
    image = cv2.resize(sample.image_rgb, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    try:
        mixed = overlay(image, sample.ids, policy.palette, opacity, ignore=policy.ignore_index)
    except UserError as error:
        raise UserError(f'{sample.name}: {error}') from error
    return contact_sheet([[image, mixed]], [sample.name, ''], HEIGHT_PX)
