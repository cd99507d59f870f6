from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as reference

from internvl_dense.data.rle import decode, encode, extent, run_lengths
from internvl_dense.errors import UserError

pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')


def random_masks(count: int) -> list[np.ndarray]:
    """Noise of every density, blocks, and masks that are empty or full."""
    rng = np.random.default_rng(0)
    found = [np.zeros((5, 7), dtype=bool), np.ones((5, 7), dtype=bool), np.ones((1, 1), dtype=bool)]
    while len(found) < count:
        height, width = rng.integers(1, 90, 2)
        mask = rng.random((height, width)) < rng.random() ** 3
        if rng.random() < 0.5:
            mask = np.zeros((height, width), dtype=bool)
            mask[rng.integers(height):, rng.integers(width):] = True
        found.append(mask)
    return [*found, np.ones((3000, 2000), dtype=bool)]


def test_codes_are_those_of_pycocotools() -> None:
    for mask in random_masks(300):
        theirs = reference.encode(np.asfortranarray(mask, dtype=np.uint8))
        code = encode(mask)
        assert code == {'size': list(mask.shape), 'counts': theirs['counts'].decode()}
        np.testing.assert_array_equal(decode(code), mask)
        uncompressed = {'size': code['size'], 'counts': run_lengths(code['counts']).tolist()}
        np.testing.assert_array_equal(decode(uncompressed), mask)
        assert reference.frPyObjects(uncompressed, *mask.shape)['counts'] == theirs['counts']


def test_extents_are_those_of_the_pixels() -> None:
    for mask in random_masks(300):
        code = encode(mask)
        if not mask.any():
            assert extent(code) is None
        else:
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            expected = columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
            assert extent(code) == expected


@pytest.mark.parametrize(
    ('counts', 'message'),
    [
        (None, 'a list of whole numbers or a text'),
        ([1.5, 2], 'a list of whole numbers or a text'),
        ([True], 'a list of whole numbers or a text'),
        ([4, -1], 'a run of a mask has -1 pixels'),
        ([2**70], 'more pixels than any picture'),
        ('a b', 'no compressed run-length code'),
        ('\u4e00', 'no compressed run-length code'),
        ('PPP', 'no compressed run-length code'),
        ('P' * 9 + '0', 'more pixels than any picture'),
        ('O', 'a run of a mask has -1 pixels'),
    ],
)
def test_codes_that_say_nothing(counts: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_lengths(counts)


def test_runs_that_do_not_fill_the_size() -> None:
    with pytest.raises(UserError, match='cover 5 pixels, its size 2x3 has 6'):
        decode({'size': [2, 3], 'counts': [2, 3]})
