"""Run-length encoded masks as COCO writes them, without a compiled package.

A mask is read column by column; its code counts pixels of background, object, background, ... in turn. `counts` is a
list of these numbers or, compressed, a text: from the fourth number on the difference from the one two places before,
each number in groups of five bits, the lowest first, in characters from '0' (48) on whose sixth bit says that more
groups follow (cocodataset.org/#format-results and the mask interface of its published tools).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from internvl_dense.errors import UserError

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

BASE = 48  # the character '0'
BITS = 5
MORE, SIGN, LOW = 0x20, 0x10, 0x1F
GROUPS = 7  # 35 bits: more than any picture has pixels
TOO_LONG = 'a run of a mask has more pixels than any picture'


def encode(mask: Mask) -> dict[str, Any]:
    """Compressed code of an (H, W) mask: `size` [H, W] and `counts` as text."""
    flat = mask.ravel(order='F')
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    if flat.size and flat[0]:
        counts.insert(0, 0)
    return {'size': list(mask.shape), 'counts': _compressed(counts)}


def decode(code: Mapping[str, Any]) -> Mask:
    """The (H, W) mask of a code.

    Raises:
        UserError: See `run_lengths`, or the runs do not fill the size.
    """
    counts, (height, width) = run_lengths(code['counts']), code['size']
    if counts.sum() != height * width:
        raise UserError(f'the runs of a mask cover {counts.sum()} pixels, its size {height}x{width} has '
                        f'{height * width}')
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape((height, width), order='F')


def run_lengths(counts: Any) -> Counts:
    """Lengths of the runs, background first.

    Args:
        counts: A list of whole numbers, or compressed text.

    Raises:
        UserError: It is neither, or a run is shorter than 0.
    """
    if isinstance(counts, str):
        runs = _decompressed(counts)
    elif isinstance(counts, list) and all(type(value) is int for value in counts):
        if counts and max(map(abs, counts)) >= 1 << (BITS * GROUPS):
            raise UserError(TOO_LONG)
        runs = np.array(counts, dtype=np.int64)
    else:
        raise UserError('the counts of a mask are a list of whole numbers or a text')
    if runs.size and runs.min() < 0:
        raise UserError(f'a run of a mask has {runs.min()} pixels')
    return runs


def extent(code: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """x, y, width, height of the pixels of a mask whose runs fill its size; None where it has no pixel.

    Raises:
        UserError: See `run_lengths`.
    """
    counts, height = run_lengths(code['counts']), int(code['size'][0])
    ends = np.cumsum(counts)
    first, last = (ends - counts)[1::2], (ends - 1)[1::2]
    first, last = first[last >= first], last[last >= first]
    if not first.size:
        return None
    left, right = int(first.min() // height), int(last.max() // height)
    if (first // height != last // height).any():  # a run over the end of a column touches top and bottom
        return left, 0, right - left + 1, height
    top, bottom = int((first % height).min()), int((last % height).max())
    return left, top, right - left + 1, bottom - top + 1


def _compressed(counts: list[int]) -> str:
    letters = []
    for position, count in enumerate(counts):
        left = count - counts[position - 2] if position > 2 else count
        while True:
            bits, left = left & LOW, left >> BITS
            done = left == (-1 if bits & SIGN else 0)
            letters.append(chr(BASE + (bits if done else bits | MORE)))
            if done:
                break
    return ''.join(letters)


def _decompressed(text: str) -> Counts:
    letters = np.frombuffer(text.encode('utf-32-le'), dtype=np.uint32).astype(np.int64) - BASE
    if not letters.size:
        return letters
    ends = np.flatnonzero((letters & MORE) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if letters.min() < 0 or letters.max() >= 2 * MORE or not ends.size or ends[-1] != letters.size - 1:
        raise UserError('the text of a mask is no compressed run-length code')
    groups = ends - starts + 1
    if groups.max() > GROUPS:
        raise UserError(TOO_LONG)
    place = np.arange(letters.size) - np.repeat(starts, groups)
    values = np.add.reduceat((letters & LOW) << (BITS * place), starts)
    values -= np.where(letters[ends] & SIGN, np.int64(1) << (BITS * groups), 0)
    values[1::2] = np.cumsum(values[1::2])  # differences begin at the fourth number
    values[2::2] = np.cumsum(values[2::2])
    return values
