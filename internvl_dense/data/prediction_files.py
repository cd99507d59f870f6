"""The folder of a prediction run: masks, overlays, and a record of what made them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from internvl_dense.data.drawing import WHITE, Ids, Picture, overlay, with_legend, write_palette_png
from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.errors import UserError, problems

RECORD = 'predict.json'
BAD_FILES = 'bad_files.txt'
MASKS, OVERLAYS = 'masks', 'overlays'
JPEG_QUALITY = 92
MIN_LEGEND_PX = 240  # room for one long class name
SHOWN = 8
BLACK = (0, 0, 0)

Settings = dict[str, Any]


class PredictionFolder:
    """Results of one model in one folder: `masks/NAME.png`, `overlays/NAME.jpg`, `predict.json`, `bad_files.txt`.

    Every file is written under another name and renamed, so whatever has its final name is complete.

    Args:
        folder: Made by `open`.
        policy: Meaning of the ids.
        opacity: Of the colours in overlays, 0..1.
    """

    def __init__(self, folder: Path, policy: LabelPolicy, opacity: float = 0.5) -> None:
        self.folder = folder
        self.policy = policy
        self.opacity = opacity

    @staticmethod
    def result_folders(folder: Path) -> tuple[Path, Path]:
        """Where masks and overlays of a run in `folder` lie."""
        return folder / MASKS, folder / OVERLAYS

    def open(self, settings: Settings, about: Settings | None = None, overwrite: bool = False) -> None:
        """Makes the folder, or makes sure that what lies there was made in the same way.

        Args:
            settings: All that the results depend on, as plain data; noted in `predict.json`.
            about: What else is worth noting there and may change, such as where a file lay.
            overwrite: Delete the masks and overlays of an earlier run first.

        Raises:
            UserError: The folder holds results of other settings, or results of unknown origin.
        """
        record = self.folder / RECORD
        settings = json.loads(json.dumps(settings, default=str))
        if any(self._results()):
            if not record.is_file():
                raise UserError(f'{self.folder} holds {MASKS}/ or {OVERLAYS}/ but no {RECORD}, so it is unknown what '
                                'made them. Name another folder with --out, or move them away.')
            if not overwrite:
                self._compare(settings, _read_settings(record))
            else:
                self._delete_results()
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**(about or {}), 'settings': settings}, indent=1, default=str)
        _write(record, lambda part: part.write_text(f'{text}\n', encoding='utf-8'))

    def _compare(self, settings: Settings, earlier: Settings) -> None:
        new, old = dict(_flat(settings)), dict(_flat(earlier))
        changed = [f'{key}: {old.get(key, "nothing")} there, {new.get(key, "nothing")} now'
                   for key in {**old, **new} if old.get(key) != new.get(key)]
        if changed:
            more = [f'and {len(changed) - SHOWN} more'] if len(changed) > SHOWN else []
            title = (f'{self.folder} holds predictions made in another way; name another folder with --out, or delete '
                     'them and predict again with --overwrite')
            raise UserError(problems(title, [*changed[:SHOWN], *more]))

    def _results(self) -> Iterator[Path]:
        masks, overlays = self.result_folders(self.folder)
        yield from masks.rglob('*.png')
        yield from overlays.rglob('*.jpg')

    def _delete_results(self) -> None:
        # Before the new record is written: a run that is stopped here leaves an empty folder, not a mixed one.
        for path in list(self._results()):
            path.unlink()

    def paths(self, name: str) -> tuple[Path, Path]:
        """Mask and overlay of an image."""
        masks, overlays = self.result_folders(self.folder)
        # Not with_suffix, which would cut a name at its last dot.
        return masks / f'{name}.png', overlays / f'{name}.jpg'

    def is_done(self, name: str) -> bool:
        """Whether both results of an image are there."""
        return all(path.is_file() for path in self.paths(name))

    def save(self, name: str, image_rgb: Picture, ids: npt.NDArray[np.uint8]) -> None:
        """Writes mask and overlay.

        The mask holds raw ids, those of label files of this policy: with `reduce_zero_label` class k is written as
        k + 1 and 0 does not occur.

        Args:
            name: From `find_images`.
            image_rgb: (H, W, 3) uint8.
            ids: (H, W) uint8 training ids.
        """
        mask, picture = self.paths(name)
        first = self.policy.first_raw_id
        palette = (BLACK,) * first + self.policy.palette
        raw = (ids + first).astype(np.uint8)  # fits: a policy leaves room for 255
        shown = draw_prediction(image_rgb, ids, self.policy, self.opacity)
        for path in (mask, picture):
            path.parent.mkdir(parents=True, exist_ok=True)
        _write(mask, lambda part: write_palette_png(part, raw, palette))
        _write(picture, lambda part: Image.fromarray(shown).save(
            part, format='JPEG', quality=JPEG_QUALITY, subsampling=0))

    def write_bad_files(self, bad: Mapping[Path, str]) -> Path | None:
        """Lists images that gave no result, with the reason; removes an earlier list where there are none."""
        path = self.folder / BAD_FILES
        if not bad:
            path.unlink(missing_ok=True)
            return None
        text = ''.join(f'{file}\t{reason}\n' for file, reason in bad.items())
        _write(path, lambda part: part.write_text(text, encoding='utf-8'))
        return path


def draw_prediction(image_rgb: Picture, ids: Ids, policy: LabelPolicy, opacity: float) -> Picture:
    """The image under its classes, with a legend of those that occur. Narrow images get a white margin on the right."""
    mixed = overlay(image_rgb, ids, policy.palette, opacity)
    margin = max(0, MIN_LEGEND_PX - mixed.shape[1])
    canvas = np.pad(mixed, ((0, 0), (0, margin), (0, 0)), constant_values=WHITE[0])
    present = np.unique(ids).tolist()
    return with_legend(canvas, [policy.classes[i] for i in present], [policy.palette[i] for i in present])


def _read_settings(record: Path) -> Settings:
    try:
        settings: Settings = json.loads(record.read_text(encoding='utf-8'))['settings']
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{record} is damaged ({error}), so it is unknown what made the results beside it. Name '
                        'another folder with --out, or delete them and predict again with --overwrite.') from error
    return settings


def _flat(data: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    """Nested dicts and lists as 'a.b.0' -> value."""
    if not isinstance(data, dict | list) or not data:
        yield key, data
        return
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for name, value in items:
        yield from _flat(value, f'{key}.{name}' if key else str(name))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Writes under another name, waits for the disk and renames. A leftover of a stopped run is replaced."""
    part = path.with_name(f'{path.name}.part')
    write(part)
    with part.open('rb') as file:
        os.fsync(file.fileno())
    part.replace(path)
