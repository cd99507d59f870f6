"""Pictures of detected objects: masks, boxes, and labels that keep out of each other's way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from internvl_dense.data.drawing import Picture
from internvl_dense.data.instances import InstanceClasses, Instances
from internvl_dense.data.label_policy import Colour

INK, PAPER = (0, 0, 0), (255, 255, 255)
# Sizes grow with the shorter side of the picture, within these limits.
FONT_PX, FONT_SHARE = (11, 28), 1 / 45
LINE_PX, LINE_SHARE = (1, 6), 1 / 320
PADDING_PX = 2
SHORT_SIDE_PX = 360  # smaller pictures are enlarged, or labels would cover what they name
# Weights of red, green and blue in lightness (ITU-R BT.601), and from where on black text reads better than white.
LIGHTNESS, BRIGHT = (0.299, 0.587, 0.114), 140

Place = tuple[int, int, int, int]  # x0, y0, x1, y1


def draw_instances(
    image_rgb: Picture, found: Instances, names: InstanceClasses, min_score: float = 0.3, opacity: float = 0.5
) -> Picture:
    """Draws objects on a copy of an image: the better the score, the further in front.

    Args:
        image_rgb: (H, W, 3) uint8.
        found: Objects of this image.
        names: Names and colours of their classes.
        min_score: Objects below this are left out.
        opacity: Of masks, 0..1.

    Returns:
        (H, W, 3) uint8 RGB, the same for the same input.
    """
    shown = found.by_score(min_score)
    canvas = np.ascontiguousarray(image_rgb).copy()
    line_px = _size(canvas, LINE_PX, LINE_SHARE)
    for position in range(len(shown) - 1, -1, -1):
        colour = names.palette[shown.labels[position]]
        if shown.masks is not None:
            _draw_mask(canvas, shown.masks[position], colour, opacity, line_px)
        x0, y0, x1, y1 = _pixels(shown.boxes[position], canvas)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, line_px)
    return _with_labels(canvas, shown, names)


def enlarged(image_rgb: Picture, found: Instances) -> tuple[Picture, Instances]:
    """A small image and its objects at a whole multiple of their size, every pixel repeated; large ones as they are."""
    factor = -(-SHORT_SIDE_PX // min(image_rgb.shape[:2]))
    if factor == 1:
        return image_rgb, found
    masks = None if found.masks is None else found.masks.repeat(factor, axis=1).repeat(factor, axis=2)
    image = image_rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    return image, dataclasses.replace(found, boxes=found.boxes * factor, masks=masks)


def label_places(boxes: Iterable[Place], sizes: Iterable[tuple[int, int]], width: int, height: int) -> list[Place]:
    """Where the label of each box goes: above it, else inside, else below, the first that is free.

    Args:
        boxes: Within the picture, the most important first.
        sizes: Width and height of each label.
        width: Of the picture.
        height: Of the picture.

    Returns:
        Within the picture where the label is no larger than it. Where nothing is free, above the box.
    """
    places: list[Place] = []
    for (x0, y0, _, y1), (label_width, label_height) in zip(boxes, sizes, strict=True):
        left = max(0, min(x0, width - label_width))
        tops = [y0 - label_height, y0, y1 - label_height, y1]
        options = [(left, top, left + label_width, top + label_height)
                   for top in tops if 0 <= top <= height - label_height]
        free = [option for option in options if not any(_overlap(option, place) for place in places)]
        fallback = (left, 0, left + label_width, label_height)
        places.append(next(iter(free or options), fallback))
    return places


def _with_labels(canvas: Picture, shown: Instances, names: InstanceClasses) -> Picture:
    font = ImageFont.load_default(_size(canvas, FONT_PX, FONT_SHARE))
    texts = [f'{names.classes[label]} {score:.2f}' for label, score in zip(shown.labels, shown.scores, strict=True)]
    ascent, descent = _metrics(font)
    sizes = [(int(font.getlength(text)) + 2 * PADDING_PX + 1, ascent + descent + 2 * PADDING_PX) for text in texts]
    height, width = canvas.shape[:2]
    places = label_places([_pixels(box, canvas) for box in shown.boxes], sizes, width, height)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    for position in range(len(shown) - 1, -1, -1):
        colour, (x0, y0, x1, y1) = names.palette[shown.labels[position]], places[position]
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=tuple(colour))
        ink = INK if np.dot(LIGHTNESS, colour) > BRIGHT else PAPER
        pen.text((x0 + PADDING_PX, y0 + PADDING_PX), texts[position], fill=ink, font=font)
    return np.array(picture)


def _draw_mask(canvas: Picture, mask: np.ndarray, colour: Colour, opacity: float, line_px: int) -> None:
    canvas[mask] = np.rint(canvas[mask] * (1 - opacity) + np.array(colour) * opacity).astype(np.uint8)
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outline, -1, colour, line_px)


def _pixels(box: Sequence[float] | np.ndarray, canvas: Picture) -> Place:
    """First and last pixel of a box, within the picture."""
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = (int(round(float(value))) for value in box)
    return (min(max(x0, 0), width - 1), min(max(y0, 0), height - 1),
            min(max(x1 - 1, 0), width - 1), min(max(y1 - 1, 0), height - 1))


def _size(canvas: Picture, limits: tuple[int, int], share: float) -> int:
    return min(max(round(min(canvas.shape[:2]) * share), limits[0]), limits[1])


def _metrics(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> tuple[int, int]:
    """Pixels above and below the line that letters stand on."""
    return font.getmetrics() if isinstance(font, ImageFont.FreeTypeFont) else (FONT_PX[0], 0)


def _overlap(first: Place, second: Place) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
