"""Results of a detector as files: one json an image, overlays, and one COCO json of all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from internvl_dense.data.drawing import Picture
from internvl_dense.data.instance_drawing import draw_instances, enlarged
from internvl_dense.data.instances import InstanceClasses, Instances
from internvl_dense.data.result_folder import INSTANCES, MERGED, OVERLAYS, ResultFolder, write_picture
from internvl_dense.data.rle import encode
from internvl_dense.data.whole_files import write_json
from internvl_dense.errors import UserError, problems

SHOWN = 5
Json = dict[str, Any]


@dataclass(frozen=True)
class CocoIds:
    """Which ids an annotation file gives to images and classes.

    Args:
        source: The file; empty for ids of our own.
        images: File name -> id.
        categories: Class name -> id.
    """

    source: str = ''
    images: Mapping[str, int] = field(default_factory=dict)
    categories: Mapping[str, int] = field(default_factory=dict)

    def image(self, file_name: str) -> int | None:
        """Id of a file: by its whole name, else by the last part where only one image has that."""
        same = self._by_end.get(Path(file_name).name, [])
        return self.images.get(file_name, same[0] if len(same) == 1 else None)

    @cached_property
    def _by_end(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for name, number in self.images.items():
            found.setdefault(Path(name).name, []).append(number)
        return found


def read_coco_ids(path: Path, classes: Sequence[str], file_names: Sequence[str]) -> CocoIds:
    """Takes the ids of images and classes from a COCO json.

    Args:
        path: The json; its annotations are not needed.
        classes: Names of the model.
        file_names: Images that will be predicted.

    Raises:
        UserError: It cannot be read, or does not know a class or an image; all at once.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8-sig'))
        images = {image['file_name']: image['id'] for image in content['images']}
        categories = {category['name']: category['id'] for category in content['categories']}
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}') from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} is no COCO json with images and categories: {type(error).__name__} {error}') from error
    ids = CocoIds(str(path), images, categories)
    unknown = [name for name in file_names if ids.image(name) is None]
    faults = [f'no category {name!r}' for name in classes if name not in categories][:SHOWN]
    if unknown:
        faults.append(f'{len(unknown)} of {len(file_names)} images are not in it, such as {", ".join(unknown[:SHOWN])}')
    if faults:
        raise UserError(problems(f'{path} does not fit these images and this model', faults))
    return ids


class InstanceFolder(ResultFolder):
    """`instances/NAME.json` and `overlays/NAME.jpg` of each image and `predictions.json`, see `ResultFolder`.

    The files of single images let a stopped run continue; `finish` joins all of them. The merged json holds `images`
    and `categories` as COCO has them, and `predictions`, a COCO result list (each entry also with `file_name` and
    `category`): `coco.loadRes(content['predictions'])` takes it where the ids are those of an annotation file.

    Args:
        folder: Made by `open`.
        names: Names and colours of the classes.
        file_names: Name -> file name of each image of the run, below the folder of the images.
        ids: Those of an annotation file; without one images and categories are numbered from 1, images by file name.
        min_score: Objects below this are in the json files, and not drawn.
        opacity: Of masks in overlays, 0..1.
    """

    kinds = (INSTANCES, OVERLAYS)

    def __init__(
        self, folder: Path, names: InstanceClasses, file_names: Mapping[str, str], ids: CocoIds | None = None,
        min_score: float = 0.3, opacity: float = 0.5,
    ) -> None:
        super().__init__(folder)
        self.names = names
        self.file_names = file_names
        self.ids = ids or CocoIds()
        self.min_score = min_score
        self.opacity = opacity

    def save(self, name: str, image_rgb: Picture, result: Instances) -> None:
        """Writes the objects of an image, best first, and the overlay.

        Args:
            name: From `find_images`.
            image_rgb: (H, W, 3) uint8.
            result: Its objects.
        """
        listed, picture = self.paths(name)
        height, width = image_rgb.shape[:2]
        drawn, shown = enlarged(image_rgb, result.by_score(self.min_score))
        write_picture(picture, draw_instances(drawn, shown, self.names, self.min_score, self.opacity))
        write_json(listed, {'file_name': self.file_names[name], 'width': width, 'height': height,
                            'instances': list(_entries(result.by_score(), self.names))})

    def finish(self) -> str:
        """Writes `predictions.json` from all images of the folder, also those of earlier runs."""
        rows = [json.loads(path.read_text(encoding='utf-8'))
                for path in sorted((self.folder / INSTANCES).rglob('*.json'))]
        rows.sort(key=lambda row: row['file_name'])
        categories = {name: self.ids.categories.get(name, number)
                      for number, name in enumerate(self.names.classes, 1)}
        images = [self._image(number, row) for number, row in enumerate(rows, 1)]
        predictions = [
            {'image_id': image['id'], 'file_name': image['file_name'], 'category_id': categories[entry['category']],
             **entry} for image, row in zip(images, rows, strict=True) for entry in row['instances']]
        write_json(self.folder / MERGED, {
            'images': images, 'categories': [{'id': number, 'name': name} for name, number in categories.items()],
            'predictions': predictions})
        return f'{super().finish()}, {self.folder / MERGED}'

    def _image(self, number: int, row: Json) -> Json:
        known = self.ids.image(row['file_name']) if self.ids.source else number
        if known is None:
            raise UserError(f'{self.folder} holds results of {row["file_name"]}, which {self.ids.source} does not '
                            'know. Name another folder with --out, or the annotation file of all these images.')
        return {'id': known, **{key: row[key] for key in ('file_name', 'width', 'height')}}


def _entries(found: Instances, names: InstanceClasses) -> Iterator[Json]:
    """Plain data of each object: x, y, width, height in pixels, and the mask as compressed RLE."""
    for position in range(len(found)):
        x0, y0, x1, y1 = found.boxes[position].tolist()
        entry: Json = {'category': names.classes[found.labels[position]], 'bbox': [x0, y0, x1 - x0, y1 - y0],
                       'score': float(found.scores[position])}
        yield entry if found.masks is None else {**entry, 'segmentation': encode(found.masks[position])}
