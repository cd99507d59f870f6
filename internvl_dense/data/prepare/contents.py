"""Strict reading of images and labels in memory."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from internvl_dense.data.label_files import READ_ERRORS, count_ids
from internvl_dense.data.prepare.entries import Entry
from internvl_dense.data.prepare.layouts import Content, Selection, Task
from internvl_dense.errors import UserError

# PNG specification, third edition, 5.2 and 11.2.1: signature, then the header chunk with depth and colour type.
PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
PNG_DEPTH_AT, PNG_COLOUR_AT = 24, 25
IMAGE_MAGIC = {b'\xff\xd8\xff': 'JPEG', PNG_MAGIC: 'PNG'}
GREY, PALETTE = 0, 3
COLOUR_TYPES = {GREY: 'grey', 2: 'RGB', PALETTE: 'palette', 4: 'grey with alpha', 6: 'RGB with alpha'}
LABEL_DEPTH = 8
# The chunk that ends every PNG file: length 0, its name, checksum.
PNG_END = b'\0\0\0\0IEND\xaeB`\x82'
PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 4, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)

Ids = npt.NDArray[np.uint8]


def take_image(data: bytes, task: Task, selection: Selection) -> Content:
    """An image as it is; decoded once where the source has no checksums.

    Raises:
        UserError: Neither JPEG nor PNG (readers go by content, whatever the name says), or damaged.
    """
    kind = next((name for magic, name in IMAGE_MAGIC.items() if data.startswith(magic)), None)
    if kind is None:
        raise UserError(f'no image file: it begins with {data[:8].hex(" ") or "nothing"}')
    if not task.entry.source.has_checksums:
        with _open(data, kind) as image:
            # An eighth of the size is enough to read all of a JPEG's data, and much faster.
            image.draft(None, (image.width // 8, image.height // 8))
            _load(image)
    return Content(data)


def take_text(data: bytes, task: Task, selection: Selection) -> Content:
    """A file as it is."""
    return Content(data)


def decode_label(data: bytes) -> Ids:
    """Ids of a label image, (H, W).

    Raises:
        UserError: Not a PNG of one channel with 8 bits, or damaged.
    """
    if not data.startswith(PNG_MAGIC) or len(data) <= PNG_COLOUR_AT:
        raise UserError(f'no PNG file: it begins with {data[:8].hex(" ") or "nothing"}')
    depth, colour = data[PNG_DEPTH_AT], data[PNG_COLOUR_AT]
    if depth != LABEL_DEPTH or colour not in (GREY, PALETTE):
        kind = COLOUR_TYPES.get(colour, f'colour type {colour}')
        raise UserError(f'{depth}-bit {kind}; a label of this data set is 8-bit with one channel of ids')
    if PNG_END not in data:
        raise UserError('a PNG file without its end: cut off')
    with _open(data, 'PNG') as image:
        _load(image)
        return np.asarray(image, dtype=np.uint8)


def encode_label(ids: Ids) -> bytes:
    """A grey 8-bit PNG of (H, W) ids; the same bytes for the same ids."""
    # OpenCV lets other threads run meanwhile, which Pillow does not: a label of 640 x 480 pixels took 2.7 ms in two
    # threads on two cores, and 7.3 ms with Pillow. Level 4 makes files 10 % larger than level 6 does.
    done, data = cv2.imencode('.png', ids, PNG_OPTIONS)
    assert done, ids.shape
    return data.tobytes()


def check_ids(ids: Ids, allowed: Iterable[int], rule: str) -> None:
    """Raises for ids that are no class.

    Raises:
        UserError: With those ids and their number of pixels.
    """
    found = count_ids(ids)
    wrong = sorted(set(found) - set(allowed))
    if wrong:
        shown = ', '.join(f'{value} ({found[value]} pixels)' for value in wrong[:5])
        more = f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''
        raise UserError(f'id {shown}{more}; {rule}')


def same_ids(first: bytes, second: bytes) -> bool:
    """Whether two label files hold the same ids, however they are compressed."""
    return first == second or np.array_equal(decode_label(first), decode_label(second))


def has_source_size(path: Path, entry: Entry) -> bool:
    """A copy is complete when it has the size of its source."""
    return path.stat().st_size == entry.size


def has_png_end(path: Path, entry: Entry) -> bool:
    """A converted label is complete when its last chunk is there."""
    with path.open('rb') as file:
        file.seek(max(0, path.stat().st_size - len(PNG_END)))
        return file.read() == PNG_END


def _open(data: bytes, kind: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=[kind])
    except READ_ERRORS as error:
        raise UserError(f'damaged {kind} file ({_cause(error)})') from None


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except READ_ERRORS as error:
        raise UserError(f'damaged {image.format} file ({_cause(error)})') from None


def _cause(error: Exception) -> str:
    # Pillow names the buffer object, which tells nobody anything.
    return 'not an image' if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
