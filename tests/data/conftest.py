"""A small sample data set, and a folder that breaks on demand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.data.sample import make_sample_dataset
from internvl_dense.data.split_files import SampleIndex

HEIGHT, WIDTH = 12, 20


@pytest.fixture(scope='session')
def sample_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 training and 20 validation pictures of the default size."""
    return make_sample_dataset(tmp_path_factory.mktemp('sample') / 'shapes', train=60, val=20)


@dataclass(frozen=True)
class Split:
    """Three good images with labels, classes a, b, c; tests spoil one thing each."""

    images: Path
    labels: Path
    policy: LabelPolicy

    def index(self, **options: object) -> SampleIndex:
        return SampleIndex(self.images, self.labels, self.policy, **options)  # type: ignore[arg-type]

    def save_label(self, name: str, array: np.ndarray, **options: object) -> Path:
        path = self.labels / name
        Image.fromarray(array).save(path, **options)
        return path


def good_ids() -> np.ndarray:
    """Ids 0, 1, 2 and 255 in columns."""
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    ids[:, 5:10], ids[:, 10:15], ids[:, 15:] = 1, 2, 255
    return ids


@pytest.fixture
def split(tmp_path: Path) -> Split:
    result = Split(tmp_path / 'images', tmp_path / 'labels', LabelPolicy(('a', 'b', 'c')))
    result.images.mkdir()
    result.labels.mkdir()
    for name in ('one', 'three', 'two'):
        picture = np.random.default_rng(len(name)).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(picture).save(result.images / f'{name}.jpg')
        result.save_label(f'{name}.png', good_ids())
    return result
