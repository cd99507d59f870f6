from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from internvl_dense.data import split_files
from internvl_dense.data.sample import SAMPLE_POLICY
from internvl_dense.data.split_files import SampleIndex


def sample_index(root: Path, **options: Any) -> SampleIndex:
    return SampleIndex(root / 'images/training', root / 'annotations/training', SAMPLE_POLICY, **options)


def test_a_limit_spreads_over_the_split(sample_root: Path) -> None:
    index = sample_index(sample_root, max_files=6)
    assert [pair.name for pair in index.checked] == [f'sample_{number:05d}' for number in (1, 11, 21, 31, 41, 51)]
    assert len(index.labels) == len(index.images) == 6
    assert len(sample_index(sample_root, max_files=99).checked) == 60


def test_facts_are_in_the_order_of_the_pairs(sample_root: Path) -> None:
    index = sample_index(sample_root)
    assert [facts.path for facts in index.labels] == [pair.label for pair in index.checked]
    assert [facts.path for facts in index.images] == [pair.image for pair in index.checked]


def test_every_file_is_read_once(sample_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = split_files.label_facts
    monkeypatch.setattr(split_files, 'label_facts', lambda path: (read.append(path), real(path))[1])
    index = sample_index(sample_root)
    for _ in range(2):
        assert sum(index.pixels.values()) == 60 * 140 * 140
        assert len(index.labels) == 60
    assert len(read) == 60


def test_reading_is_quick(sample_root: Path) -> None:
    """460 small files in about 0.2 s on one core; a tenth of that for these 60, and room for a busy machine."""
    start = time.perf_counter()
    index = sample_index(sample_root)
    assert index.labels and index.images
    assert time.perf_counter() - start < 1
