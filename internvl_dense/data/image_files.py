"""Reads images as the training pipeline sees them, and says what is odd about a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from internvl_dense.data.label_files import READ_ERRORS, reason
from internvl_dense.errors import UserError

# EXIF tag of the camera's orientation; 5..8 swap width and height (EXIF 2.32, section 4.6.4).
ORIENTATION_TAG = 0x0112
UPRIGHT = 1
SIDEWAYS = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class ImageFacts:
    """What one pass over an image file tells.

    Args:
        path: The file.
        unreadable: Why it cannot be read; the rest is empty then.
        stored_size: Width and height in the file.
        orientation: EXIF orientation, 1 for upright.
        mode: Pillow's name of the pixel format.
        frames: More than 1 for an animation.
    """

    path: Path
    unreadable: str = ''
    stored_size: tuple[int, int] = (0, 0)
    orientation: int = UPRIGHT
    mode: str = ''
    frames: int = 1

    @property
    def width_height(self) -> tuple[int, int]:
        """Size after the EXIF rotation, which is how images are read."""
        width, height = self.stored_size
        return (height, width) if self.orientation in SIDEWAYS else (width, height)


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, turned upright by EXIF; grey, palette, alpha and 16-bit files become 8-bit colour.

    Raises:
        UserError: The file is missing or no image.
    """
    if not path.is_file():
        raise UserError(f'{path}: no such file')
    data = np.fromfile(path, dtype=np.uint8)
    # Not cv2.imread: it cannot open paths with non-ASCII letters everywhere.
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise UserError(f'{path}: cannot be read as an image{"" if len(data) else " (the file is empty)"}')
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


def image_facts(path: Path) -> ImageFacts:
    """Decodes an image once and reports what the rules need; raises nothing.

    Decoded by Pillow, which refuses a file that is cut off; some decoders fill the rest with grey.
    """
    try:
        with Image.open(path) as image:
            orientation = _orientation(image)
            facts = ImageFacts(path, '', image.size, orientation, image.mode, getattr(image, 'n_frames', 1))
            # An eighth of the size is enough to read all of a JPEG's data, and much faster.
            image.draft(None, (image.width // 8, image.height // 8))
            image.load()
    except READ_ERRORS as error:
        return ImageFacts(path, unreadable=f'cannot be read as an image ({reason(path, error)})')
    return facts


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(ORIENTATION_TAG, UPRIGHT)
    return value if isinstance(value, int) else UPRIGHT
