"""Reads label images as ids, never as colours, and says what is odd about a file."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from internvl_dense.errors import UserError

# Pillow's names of pixel formats with one channel. 'P' holds palette indices, which are the ids.
# https://pillow.readthedocs.io/en/stable/handbook/concepts.html#modes
INDEX_MODES = frozenset({'1', 'L', 'P', 'I', 'I;16', 'I;16B', 'I;16L', 'I;16N'})
FLOAT_MODE = 'F'

# What Pillow raises for a file that is cut off, empty, of another type, damaged, or too large to be a picture: it says
# OSError in its manual, and the rest was seen with files damaged at random.
READ_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class LabelFacts:
    """What one pass over a label file tells.

    Args:
        path: The file.
        unreadable: Why it cannot be read; the rest is empty then.
        width_height: Size in pixels.
        mode: Pillow's name of the pixel format.
        file_format: 'PNG', 'JPEG', ...
        pixels: Raw id -> number of pixels; empty unless the file holds whole numbers in one channel.
        equal_channels: Several channels that all hold the same.
    """

    path: Path
    unreadable: str = ''
    width_height: tuple[int, int] = (0, 0)
    mode: str = ''
    file_format: str = ''
    pixels: dict[int, int] = field(default_factory=dict)
    equal_channels: bool = False

    @property
    def is_index(self) -> bool:
        """One channel of whole numbers."""
        return self.mode in INDEX_MODES


def read_label(path: Path) -> npt.NDArray[Any]:
    """Raw ids of a label image: (H, W) uint8, or uint16 where the file holds larger ids.

    Palette images give their indices.

    Raises:
        UserError: The file cannot be read, has several channels, holds fractions or ids outside 0..65535.
    """
    facts, array = _read(path)
    if facts.unreadable:
        raise UserError(f'{path}: {facts.unreadable}')
    if array is None:
        raise UserError(f'{path}: a label holds whole numbers in one channel, this one is {facts.mode}')
    if array.dtype.itemsize > 2:
        if array.min() < 0 or array.max() > np.iinfo(np.uint16).max:
            raise UserError(f'{path}: ids {array.min()}..{array.max()} do not fit in 0..65535')
        array = array.astype(np.uint16)
    return array


def label_facts(path: Path) -> LabelFacts:
    """Reads a label file once and reports what the rules need; raises nothing."""
    return _read(path)[0]


def _read(path: Path) -> tuple[LabelFacts, npt.NDArray[Any] | None]:
    try:
        with Image.open(path) as image:
            mode, file_format, size = image.mode, image.format or '', image.size
            array = np.asarray(image)
    except READ_ERRORS as error:
        return LabelFacts(path, unreadable=f'cannot be read as an image ({reason(path, error)})'), None
    if mode in INDEX_MODES:
        # 1-bit images arrive as booleans.
        ids = array.astype(np.uint8) if array.dtype == np.bool_ else array
        return LabelFacts(path, '', size, mode, file_format, count_ids(ids)), ids
    equal = array.ndim == 3 and bool((array[..., :3] == array[..., :1]).all())
    return LabelFacts(path, '', size, mode, file_format, equal_channels=equal), None


def count_ids(ids: npt.NDArray[Any]) -> dict[int, int]:
    """Id -> number of pixels, sorted by id."""
    if ids.dtype == np.uint8:
        counts = np.bincount(ids.ravel(), minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, totals = np.unique(ids, return_counts=True)
    return {int(value): int(total) for value, total in zip(values, totals, strict=True)}


def reason(path: Path, error: Exception) -> str:
    """Short cause of a failed read: Pillow's text names the whole path a second time or nothing useful."""
    if path.is_file() and path.stat().st_size == 0:
        return 'the file is empty'
    if isinstance(error, UnidentifiedImageError):
        return 'not an image file'
    return str(error) or type(error).__name__
