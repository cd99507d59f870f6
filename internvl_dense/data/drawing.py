"""Pictures of labels: palette PNG files, overlays, legends, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from internvl_dense.data.label_policy import MAX_ID, Colour
from internvl_dense.errors import UserError

Picture = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.integer]

WHITE = (255, 255, 255)
INK = (40, 40, 40)
FONT_PX = 13
GAP_PX = 6


def write_palette_png(path: Path, ids: npt.NDArray[np.uint8], palette: Sequence[Colour]) -> None:
    """Writes (H, W) uint8 ids as a palette PNG: viewers show colours, readers of indices get the same ids back.

    Ids beyond the palette are black, 255 is white.

    Raises:
        UserError: The array is not (H, W) uint8, or the palette has more than 255 colours.
    """
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise UserError(f'a palette PNG holds (H, W) uint8 ids, got {ids.shape} {ids.dtype}')
    if len(palette) > MAX_ID:
        raise UserError(f'a palette PNG holds {MAX_ID} colours and white for id {MAX_ID}, got {len(palette)} colours')
    table = np.zeros((MAX_ID + 1, 3), dtype=np.uint8)
    table[: len(palette)] = np.asarray(palette, dtype=np.uint8).reshape(-1, 3)
    table[MAX_ID] = WHITE
    image = Image.fromarray(ids)
    image.putpalette(table.tobytes())
    image.save(path, format='PNG')


def colourise(ids: Ids, palette: Sequence[Colour], ignore: int | None = None, ignored: Colour = WHITE) -> Picture:
    """Class ids as colours.

    Args:
        ids: (H, W) training ids.
        palette: One colour an id.
        ignore: Id drawn in the colour `ignored`.
        ignored: Colour of the ignored area.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        UserError: An id is neither in the palette nor `ignore`.
    """
    skipped = ids == ignore if ignore is not None else np.zeros(ids.shape, dtype=bool)
    wrong = sorted(set(np.unique(ids[~skipped]).tolist()) - set(range(len(palette))))
    if wrong:
        raise UserError(f'ids {wrong[:5]} have no colour: the palette has {len(palette)}, ignored is {ignore}')
    table = np.array([*palette, ignored], dtype=np.uint8)
    return table[np.where(skipped, len(palette), ids)]


def overlay(
    image_rgb: Picture, ids: Ids, palette: Sequence[Colour], opacity: float = 0.5, ignore: int | None = None
) -> Picture:
    """Lays class colours over an image; ignored pixels show the image unchanged.

    Args:
        image_rgb: (H, W, 3) uint8.
        ids: (H, W) training ids.
        palette: One colour an id.
        opacity: 0 shows the image alone, 1 the colours alone.
        ignore: Id left without a colour.

    Raises:
        UserError: Sizes differ, the opacity is outside 0..1, or an id has no colour.
    """
    if image_rgb.shape != (*ids.shape, 3):
        raise UserError(f'overlay needs an image (H, W, 3) and ids (H, W) of one size: {image_rgb.shape}, {ids.shape}')
    if not 0 <= opacity <= 1:
        raise UserError(f'opacity = {opacity}: between 0 (image alone) and 1 (colours alone)')
    colours = colourise(ids, palette, ignore)
    mixed = np.rint(image_rgb * (1 - opacity) + colours * opacity).astype(np.uint8)
    if ignore is None:
        return mixed
    return np.where((ids == ignore)[..., None], image_rgb, mixed)


def legend(classes: Sequence[str], palette: Sequence[Colour], width_px: int) -> Picture:
    """A white strip with a colour field and the name of each class, in as many lines as the width needs."""
    font = ImageFont.load_default(FONT_PX)
    line_px = FONT_PX + GAP_PX
    places: list[tuple[int, int]] = []
    x = y = GAP_PX
    for name in classes:
        entry_px = FONT_PX + GAP_PX + int(font.getlength(name)) + 2 * GAP_PX
        if x > GAP_PX and x + entry_px > width_px:
            x, y = GAP_PX, y + line_px
        places.append((x, y))
        x += entry_px
    strip = Image.new('RGB', (width_px, y + line_px), WHITE)
    pen = ImageDraw.Draw(strip)
    for name, colour, (left, top) in zip(classes, palette, places, strict=True):
        pen.rectangle((left, top, left + FONT_PX - 1, top + FONT_PX - 1), fill=tuple(colour), outline=INK)
        pen.text((left + FONT_PX + GAP_PX, top - 1), name, fill=INK, font=font)
    return np.array(strip)


def with_legend(picture: Picture, classes: Sequence[str], palette: Sequence[Colour]) -> Picture:
    """The picture with the legend below it."""
    return np.concatenate([picture, legend(classes, palette, picture.shape[1])])


def contact_sheet(rows: Sequence[Sequence[Picture]], titles: Sequence[str], height_px: int | None = None) -> Picture:
    """Pictures in a grid under column titles, for example image | truth | prediction.

    Args:
        rows: (H, W, 3) uint8 RGB pictures, as many a row as there are titles.
        titles: One a column.
        height_px: Every picture is scaled to this height; that of the first one when left out.

    Raises:
        UserError: No rows, or a row's length is not the number of titles.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        lengths = [len(row) for row in rows]
        raise UserError(f'a contact sheet needs {len(titles)} pictures a row for {list(titles)}, got {lengths}')
    height = height_px or rows[0][0].shape[0]
    scaled = [[_to_height(picture, height) for picture in row] for row in rows]
    widths = [max(row[column].shape[1] for row in scaled) for column in range(len(titles))]
    lefts = np.cumsum([GAP_PX, *(width + GAP_PX for width in widths)])
    head_px = FONT_PX + 2 * GAP_PX
    sheet = Image.new('RGB', (int(lefts[-1]), head_px + len(rows) * (height + GAP_PX)), WHITE)
    pen = ImageDraw.Draw(sheet)
    for left, title in zip(lefts[:-1], titles, strict=True):
        pen.text((int(left), GAP_PX), title, fill=INK, font=ImageFont.load_default(FONT_PX))
    for index, row in enumerate(scaled):
        for left, picture in zip(lefts[:-1], row, strict=True):
            sheet.paste(Image.fromarray(picture), (int(left), head_px + index * (height + GAP_PX)))
    return np.array(sheet)


def _to_height(picture: Picture, height_px: int) -> Picture:
    if picture.shape[0] == height_px:
        return picture
    width_px = max(1, round(picture.shape[1] * height_px / picture.shape[0]))
    # Enlarging keeps hard pixels, so that label borders are not blended into colours of other classes.
    mode = cv2.INTER_AREA if height_px < picture.shape[0] else cv2.INTER_NEAREST
    return cv2.resize(picture, (width_px, height_px), interpolation=mode).astype(np.uint8)
