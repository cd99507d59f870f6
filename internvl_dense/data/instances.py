"""Objects that a detector found in an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from internvl_dense.data.label_policy import Colour, default_palette
from internvl_dense.errors import UserError, problems

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class InstanceClasses:
    """Names and colours of a detector's classes.

    Args:
        classes: Names in the order of labels.
        palette: One RGB colour (0..255) a class; `default_palette` when left empty.

    Raises:
        UserError: No names, or not as many colours.
    """

    classes: tuple[str, ...]
    palette: tuple[Colour, ...] = ()

    def __post_init__(self) -> None:
        if not self.palette:
            object.__setattr__(self, 'palette', default_palette(len(self.classes)))
        faults = [] if self.classes else ['classes is empty: name at least one class']
        if len(self.palette) != len(self.classes):
            faults.append(f'palette has {len(self.palette)} colours for {len(self.classes)} classes: one for each')
        if faults:
            raise UserError(problems('classes of a detector', faults))


@dataclass(frozen=True)
class Instances:
    """N objects.

    Args:
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the image.
        scores: (N,) 0..1.
        labels: (N,) positions of the classes.
        masks: (N, H, W) in the size of the image, or None for a model without masks.
    """

    boxes: Numbers
    scores: Numbers
    labels: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, positions: Sequence[int] | npt.NDArray[np.integer]) -> Instances:
        """Those objects, in that order."""
        index = np.asarray(positions, dtype=np.int64)
        masks = None if self.masks is None else self.masks[index]
        return Instances(self.boxes[index], self.scores[index], self.labels[index], masks)

    def by_score(self, least: float = 0.0) -> Instances:
        """The best first, without those of a score below `least`; equal ones keep their order."""
        order = np.argsort(-self.scores, kind='stable')
        return self.take(order[self.scores[order] >= least])
