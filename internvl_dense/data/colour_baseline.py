"""How far colour alone gets on a data set: a classifier that knows nothing but the mean colour of each class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from internvl_dense.data.file_pairs import find_pairs
from internvl_dense.data.image_files import read_image
from internvl_dense.data.label_files import read_label
from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.data.sample import SAMPLE_POLICY, SPLITS
from internvl_dense.errors import UserError


def nearest_colour_baseline(root: str | os.PathLike[str], policy: LabelPolicy = SAMPLE_POLICY) -> float:
    """Gives every validation pixel the class of the nearest mean colour of the training split: mIoU as a fraction.

    Args:
        root: Data set in the ADE20K layout with .jpg images and .png labels.
        policy: Its label policy.

    Raises:
        UserError: A split has no images with labels, or a file cannot be read.
    """
    means = _mean_colours(Path(root), policy)
    matrix = np.zeros((policy.num_classes, policy.num_classes), dtype=np.int64)
    for colours, ids in _pixels(Path(root), SPLITS[1], policy):
        distance = ((colours[:, None] - means[None]) ** 2).sum(axis=2)
        cells = ids * policy.num_classes + distance.argmin(axis=1)
        matrix += np.bincount(cells, minlength=matrix.size).reshape(matrix.shape)
    hits = np.diag(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    return float((hits[union > 0] / union[union > 0]).mean())


def _mean_colours(root: Path, policy: LabelPolicy) -> npt.NDArray[np.float64]:
    """(C, 3) mean RGB of each class; a class without pixels is infinitely far from every colour."""
    sums = np.zeros((policy.num_classes, 3))
    counts = np.zeros(policy.num_classes)
    for colours, ids in _pixels(root, SPLITS[0], policy):
        counts += np.bincount(ids, minlength=policy.num_classes)
        for channel in range(3):
            sums[:, channel] += np.bincount(ids, weights=colours[:, channel], minlength=policy.num_classes)
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.inf)


def _pixels(root: Path, split: str, policy: LabelPolicy) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Colours (N, 3) and training ids (N,) of the counted pixels of one image after another."""
    pairs = find_pairs(root / 'images' / split, root / 'annotations' / split).pairs
    if not pairs:
        raise UserError(f'{root}: no .jpg with a .png of the same name in images/{split} and annotations/{split}')
    for pair in pairs:
        ids = policy.train_ids(read_label(pair.label))
        counted = ids < policy.num_classes
        yield read_image(pair.image)[counted].astype(np.float64), ids[counted].astype(np.int64)
