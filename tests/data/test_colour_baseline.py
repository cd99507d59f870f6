from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_dense.data.colour_baseline import nearest_colour_baseline
from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.errors import UserError


def test_colour_alone_does_not_solve_the_sample_data(sample_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score = nearest_colour_baseline(sample_root)
    with capsys.disabled():
        print(f'\nnearest class colour on the sample data: mIoU {100 * score:.1f} %')
    assert 0.02 < score < 0.20


def write(root: Path, split: str, name: str, ids: list[int], greys: list[int]) -> None:
    for folder, suffix, values in (('images', 'jpg', greys), ('annotations', 'png', ids)):
        path = root / folder / split / f'{name}.{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        # Blocks of 16 pixels, so that JPEG keeps their greys.
        Image.fromarray(np.kron([values], np.ones((16, 16))).astype(np.uint8)).save(path, quality=100)


def test_the_score_by_hand(tmp_path: Path) -> None:
    """Means 100 and 240; of six blocks one is ignored, one dark block is labelled light."""
    write(tmp_path, 'training', 'a', [0, 1, 255], [100, 240, 0])
    write(tmp_path, 'validation', 'a', [0, 0, 1, 1, 1, 255], [100, 10, 240, 230, 90, 0])
    # Class a: 2 hits, union 3. Class b: 2 hits, union 3. Class c is nowhere: it neither counts nor attracts black.
    score = nearest_colour_baseline(tmp_path, LabelPolicy(('a', 'b', 'c')))
    assert score == pytest.approx(2 / 3)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='images/training'):
        nearest_colour_baseline(tmp_path)
