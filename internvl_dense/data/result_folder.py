"""The folder of a prediction run: results of each image, and a record of what made them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from internvl_dense.data.whole_files import write_whole
from internvl_dense.errors import UserError, problems

RECORD = 'predict.json'
BAD_FILES = 'bad_files.txt'
MASKS, OVERLAYS, INSTANCES = 'masks', 'overlays', 'instances'
# Everything that any kind of run writes: folder -> ending of its files.
RESULTS = {MASKS: '.png', OVERLAYS: '.jpg', INSTANCES: '.json'}
MERGED = 'predictions.json'
JPEG_QUALITY = 92
SHOWN = 8

Settings = dict[str, Any]


class ResultFolder:
    """Results of one model in one folder, a file of each kind an image, beside `predict.json` and `bad_files.txt`.

    Every file is written under another name and renamed, so whatever has its final name is complete.

    Args:
        folder: Made by `open`.
    """

    kinds: ClassVar[tuple[str, ...]]  # of RESULTS, those that this run writes of each image

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def result_folders(folder: Path) -> tuple[Path, ...]:
        """Where results of any run in `folder` lie."""
        return tuple(folder / kind for kind in RESULTS)

    def open(self, settings: Settings, about: Settings | None = None, overwrite: bool = False) -> None:
        """Makes the folder, or makes sure that what lies there was made in the same way.

        Args:
            settings: All that the results depend on, as plain data; noted in `predict.json`.
            about: What else is worth noting there and may change, such as where a file lay.
            overwrite: Delete the results of an earlier run first.

        Raises:
            UserError: The folder holds results of other settings, or results of unknown origin.
        """
        record = self.folder / RECORD
        settings = json.loads(json.dumps(settings, default=str))
        found = next(self._results(), None)
        if found is not None:
            if not record.is_file():
                raise UserError(f'{self.folder} holds {found.relative_to(self.folder)} but no {RECORD}, so it is '
                                'unknown what made it. Name another folder with --out, or move it away.')
            if not overwrite:
                self._compare(settings, _read_settings(record))
            else:
                self._delete_results()
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**(about or {}), 'settings': settings}, indent=1, default=str)
        write_whole(record, lambda part: part.write_text(f'{text}\n', encoding='utf-8'))

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
        """Of any kind of run, so that those of two models never mix."""
        for kind, ending in RESULTS.items():
            yield from (self.folder / kind).rglob(f'*{ending}')
        if (self.folder / MERGED).is_file():
            yield self.folder / MERGED

    def _delete_results(self) -> None:
        # Before the new record is written: a run that is stopped here leaves an empty folder, not a mixed one.
        for path in list(self._results()):
            path.unlink()

    def paths(self, name: str) -> tuple[Path, ...]:
        """Results of an image, in the order of `kinds`."""
        # Not with_suffix, which would cut a name at its last dot.
        return tuple(self.folder / kind / f'{name}{RESULTS[kind]}' for kind in self.kinds)

    def is_done(self, name: str) -> bool:
        """Whether all results of an image are there."""
        return all(path.is_file() for path in self.paths(name))

    def save(self, name: str, image_rgb: npt.NDArray[np.uint8], result: Any) -> None:
        """Writes all results of an image.

        Args:
            name: From `find_images`.
            image_rgb: (H, W, 3) uint8.
            result: What the model predicts for it.
        """
        raise NotImplementedError

    def finish(self) -> str:
        """Writes what is made of all results together; returns where they lie, for a message."""
        return ', '.join(str(self.folder / kind) for kind in self.kinds)

    def write_bad_files(self, bad: Mapping[Path, str]) -> Path | None:
        """Lists images that gave no result, with the reason; removes an earlier list where there are none."""
        path = self.folder / BAD_FILES
        if not bad:
            path.unlink(missing_ok=True)
            return None
        text = ''.join(f'{file}\t{reason}\n' for file, reason in bad.items())
        write_whole(path, lambda part: part.write_text(text, encoding='utf-8'))
        return path


def write_picture(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Writes (H, W, 3) uint8 RGB as a whole JPEG file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: Image.fromarray(picture).save(
        part, format='JPEG', quality=JPEG_QUALITY, subsampling=0))


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
