"""Rules about image files and their sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from internvl_dense.data.image_files import ImageFacts
from internvl_dense.data.rules import Finding
from internvl_dense.data.split_files import SampleIndex

# Pillow's pixel formats that are read as they look, and what happens to the others.
PLAIN_MODES = frozenset({'1', 'L', 'RGB', 'P'})
MODE_NOTES = {
    'RGBA': 'transparency is dropped, and what lies under it shows',
    'LA': 'transparency is dropped, and what lies under it shows',
    'PA': 'transparency is dropped, and what lies under it shows',
    'CMYK': 'print colours are converted without their colour profile',
    'I;16': '16-bit values are divided by 256; stretch dark pictures first',
    'I;16B': '16-bit values are divided by 256; stretch dark pictures first',
    'I': '16-bit values are divided by 256; stretch dark pictures first',
}


class HasImages(Protocol):
    """A split of any kind of data set."""

    @property
    def images(self) -> tuple[ImageFacts, ...]:
        """Facts of the images that are read."""


def image_unreadable(index: HasImages) -> Iterator[Finding]:
    """Images can be decoded to the end."""
    for image in index.images:
        if image.unreadable:
            yield image.path, f'{image.unreadable}. Replace it or take it out of the split.'


def image_unusual(index: HasImages) -> Iterator[Finding]:
    """Images are 8-bit grey or RGB, one frame."""
    for image in index.images:
        if image.unreadable:
            continue
        if image.mode not in PLAIN_MODES:
            yield image.path, f'pixel format {image.mode}: {MODE_NOTES.get(image.mode, "converted to 8-bit RGB")}.'
        if image.frames > 1:
            yield image.path, f'animation of {image.frames} frames: only the first is used.'


def size_differs(index: SampleIndex) -> Iterator[Finding]:
    """A label has the size of its image."""
    for image, label in zip(index.images, index.labels, strict=True):
        if image.unreadable or label.unreadable or image.width_height == label.width_height:
            continue
        sizes = f'the label is {size_text(label.width_height)}, the image {size_text(image.width_height)}'
        if image.stored_size == label.width_height:
            yield (
                label.path,
                f'{sizes} after its EXIF orientation {image.orientation} turned it; the label fits the image as '
                'stored. Turn the label too, or store the image upright without the EXIF tag.',
            )
        else:
            yield label.path, f'{sizes} (width x height). Resize the label with nearest-neighbour.'


def size_text(width_height: tuple[int, int]) -> str:
    """'640x480'."""
    return f'{width_height[0]}x{width_height[1]}'
