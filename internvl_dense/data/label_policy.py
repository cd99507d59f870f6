"""What the numbers in a label image mean: raw id -> training id -> class name."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from internvl_dense.errors import UserError, problems

Colour = tuple[int, int, int]

# Label images are 8-bit: the largest id a file can hold, and by convention of the field the ignored one.
MAX_ID = 255

# Fractional part of the golden ratio: steps by it spread any number of hues evenly around the circle.
GOLDEN_STEP = 0.6180339887498949

# (saturation, value) pairs cycled through, so that neighbours in hue still differ in lightness.
TONES = ((0.65, 0.90), (0.85, 0.65), (0.40, 1.00), (0.95, 0.45), (0.55, 0.75))


def default_palette(num_classes: int) -> tuple[Colour, ...]:
    """Distinct RGB colours (0..255) for up to 255 classes, the same ones on every call.

    Colour i has the hue i * 0.618 (golden ratio step, modulo 1) and the i-th of five saturation/value pairs in turn.
    """
    colours = []
    for index in range(num_classes):
        saturation, value = TONES[index % len(TONES)]
        red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_STEP % 1.0, saturation, value)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colours)


@dataclass(frozen=True)
class LabelPolicy:
    """The one description of a data set's label ids.

    Args:
        classes: Class names in order of training id.
        palette: One RGB colour (0..255) a class; `default_palette` when left empty.
        ignore_index: Id of pixels that count neither in the loss nor in the metrics.
        reduce_zero_label: The file's 0 is ignored and its id k means class k - 1 (the ADE20K convention).

    Raises:
        UserError: Every impossible combination, listed at once.
    """

    classes: tuple[str, ...]
    palette: tuple[Colour, ...] = ()
    ignore_index: int = MAX_ID
    reduce_zero_label: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, 'classes', tuple(self.classes))
        palette = self.palette or default_palette(len(self.classes))
        object.__setattr__(self, 'palette', tuple(tuple(colour) for colour in palette))
        found = [*_class_problems(self.classes), *_palette_problems(self), *_id_problems(self)]
        if found:
            raise UserError(problems('label policy', found))

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def first_raw_id(self) -> int:
        """Raw id of the first class: 1 with `reduce_zero_label`, else 0."""
        return int(self.reduce_zero_label)

    def train_ids(self, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Maps an array of raw label ids to training ids, of any shape and in the same dtype.

        Ids that belong to no class come back unchanged: they are never wrapped into a class or the ignored area, so
        a range check on the result still sees them.

        Raises:
            UserError: The array is neither uint8 nor uint16.
        """
        if raw.dtype not in (np.uint8, np.uint16):
            raise UserError(f'label ids must be uint8 or uint16, got {raw.dtype}. Convert the label image first.')
        ids = raw.copy()
        if self.reduce_zero_label:
            ids[raw == 0] = self.ignore_index
            ids[(raw > 0) & (raw <= self.num_classes)] -= 1
        return ids

    def train_id(self, raw_id: int) -> int:
        """Training id of one raw id."""
        return int(self.train_ids(np.array([raw_id], dtype=np.uint16))[0])

    def is_known(self, raw_id: int) -> bool:
        """Whether a raw id means a class or the ignored area."""
        train_id = self.train_id(raw_id)
        return train_id < self.num_classes or train_id == self.ignore_index

    def raw_id_rule(self) -> str:
        """The allowed raw ids in words, for messages."""
        last = self.num_classes - 1 + self.first_raw_id
        zero = ', 0 (ignored by reduce_zero_label)' if self.reduce_zero_label else ''
        return f'{self.first_raw_id}..{last}{zero} and {self.ignore_index} (ignored)'

    def describe(self, pixels: Mapping[int, int] | None = None) -> str:
        """Table raw id -> training id -> name, one line a known id.

        Args:
            pixels: Pixels found of each raw id; adds a column with the count and share, and a line for every
                unknown id among them.
        """
        known = [*range(self.num_classes + self.first_raw_id), self.ignore_index]
        raw_ids = sorted({*known, *(pixels or {})})
        names = [self._name(raw_id) for raw_id in raw_ids]
        width = max(len(name) for name in [*names, 'name'])
        rows = [f'raw id  training id  {"name":<{width}}' + ('  pixels' if pixels is not None else '')]
        total = max(sum(pixels.values()), 1) if pixels else 1
        for raw_id, name in zip(raw_ids, names, strict=True):
            row = f'{raw_id:>6}  {self.train_id(raw_id):>11}  {name:<{width}}'
            if pixels is not None:
                count = pixels.get(raw_id, 0)
                row += f'  {count} ({100 * count / total:.2f} %)'
            rows.append(row)
        return '\n'.join(row.rstrip() for row in rows)

    def _name(self, raw_id: int) -> str:
        if not self.is_known(raw_id):
            return '(no class: out of range)'
        train_id = self.train_id(raw_id)
        return '(ignored)' if train_id == self.ignore_index else self.classes[train_id]

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers, for checkpoints and json."""
        return {
            'classes': list(self.classes),
            'palette': [list(colour) for colour in self.palette],
            'ignore_index': self.ignore_index,
            'reduce_zero_label': self.reduce_zero_label,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LabelPolicy:
        """Inverse of `as_dict`.

        Raises:
            UserError: `classes` is missing, a key is unknown, or the values do not fit together.
        """
        known = {'classes', 'palette', 'ignore_index', 'reduce_zero_label'}
        unknown = sorted(set(data) - known)
        if unknown or 'classes' not in data:
            raise UserError(f'label policy needs classes and allows {sorted(known)}, got {sorted(data)}')
        values = dict(data)
        values['classes'] = tuple(values['classes'])
        values['palette'] = tuple(tuple(colour) for colour in values.get('palette') or ())
        return cls(**values)


def _class_problems(classes: Sequence[str]) -> list[str]:
    if not classes:
        return ['classes is empty: name at least one class']
    twice = sorted(name for name, count in Counter(classes).items() if count > 1)
    return [f'class names must be unique, given more than once: {", ".join(twice)}'] if twice else []


def _palette_problems(policy: LabelPolicy) -> list[str]:
    found = []
    if len(policy.palette) != policy.num_classes:
        found.append(f'palette has {len(policy.palette)} colours for {policy.num_classes} classes: one for each')
    for index, colour in enumerate(policy.palette):
        if len(colour) != 3 or any(not 0 <= value <= 255 for value in colour):
            found.append(f'palette[{index}] = {colour}: three values of 0..255 (red, green, blue)')
    return found


def _id_problems(policy: LabelPolicy) -> list[str]:
    if not 0 <= policy.ignore_index <= MAX_ID:
        return [f'ignore_index = {policy.ignore_index}: 0..{MAX_ID}, because label images are 8-bit']
    used = policy.num_classes + policy.first_raw_id
    if policy.ignore_index < used:
        return [
            f'ignore_index = {policy.ignore_index} is also the id of a class: {policy.num_classes} classes'
            f'{" with reduce_zero_label" if policy.reduce_zero_label else ""} use the raw ids'
            f' {policy.first_raw_id}..{used - 1}. Use {MAX_ID}'
            + ('' if policy.reduce_zero_label else ', or reduce_zero_label=True where 0 marks the ignored area')
        ]
    return []
