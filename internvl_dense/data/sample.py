"""A small data set that can be drawn anywhere: patterned shapes in the ADE20K folder layout.

The class of a shape is its pattern; colours, outlines and backgrounds are random and say nothing about it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from internvl_dense.data.coco_json import coco_dict, instance_annotation
from internvl_dense.data.drawing import write_palette_png
from internvl_dense.data.file_pairs import walk_files
from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.data.sample_patterns import PATTERNS
from internvl_dense.data.sample_scene import IGNORE_INDEX, Scene, draw_scene
from internvl_dense.errors import UserError, problems

# Goes up with every change of the drawing code, so that a folder drawn by older code is drawn anew.
GENERATOR_VERSION = 1

SAMPLE_POLICY = LabelPolicy(
    classes=('background', *(pattern.name for pattern in PATTERNS)),
    palette=((58, 64, 78), (226, 92, 72), (64, 140, 212), (240, 186, 62), (124, 92, 190), (80, 178, 120)),
    ignore_index=IGNORE_INDEX,
)

SPLITS = ('training', 'validation')
MANIFEST = 'sample_manifest.json'
CLASSES_FILE = 'classes.txt'
JPEG_QUALITY = 92
# Below this the smallest shapes are narrower than one period of the patterns.
MIN_SIZE_PX = 56

OWN_FILES = re.compile(
    rf'(images|annotations)/(training|validation)/sample_\d{{5,}}\.(jpg|png)'
    rf'|annotations/instances_(training|validation)\.json|{CLASSES_FILE}|{MANIFEST}'
)


def make_sample_dataset(
    root: str | os.PathLike[str], train: int = 400, val: int = 60, size_px: int = 140, seed: int = 0
) -> Path:
    """Draws the data set into `root`, or returns at once where it lies there already.

    Layout, for the splits training and validation:

    - images/<split>/sample_00001.jpg
    - annotations/<split>/sample_00001.png: palette PNG of class ids, 255 on the two-pixel line around shapes
    - annotations/instances_<split>.json: COCO boxes and polygons; the patterns are the categories
    - classes.txt: class names by id
    - sample_manifest.json: what was asked for, and the version of the drawing code

    Picture i of a split depends only on the seed, the split, i and the size. Everything is written to a neighbouring
    folder which takes the place of `root` in the end, so a stopped run leaves nothing half-done there.

    Args:
        root: Folder to make; may hold an older or incomplete sample data set, which is replaced.
        train: Number of training pictures.
        val: Number of validation pictures.
        size_px: Width and height.
        seed: Another seed gives other pictures.

    Raises:
        UserError: A number is out of range, or `root` holds files that are no sample data.
    """
    _check_arguments(train, val, size_px, seed)
    folder = Path(root)
    manifest = {
        'generator': 'internvl_dense.data.sample',
        'version': GENERATOR_VERSION,
        'training': train,
        'validation': val,
        'size_px': size_px,
        'seed': seed,
    }
    if is_complete(folder, manifest):
        return folder
    _refuse_foreign_files(folder)
    place = folder.resolve()
    partial = place.with_name(f'.{place.name}.partial-{os.getpid()}')
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_all(partial, manifest)
        if not is_complete(folder, manifest):
            _replace(place, partial)
    except OSError:
        # Another process, drawing the same, was faster: its folder stands where ours was to go.
        if not is_complete(folder, manifest):
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def is_complete(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether the folder holds the data set of that manifest, every file with content."""
    path = folder / MANIFEST
    try:
        if json.loads(path.read_text(encoding='utf-8')) != manifest:
            return False
    except (OSError, ValueError):
        return False
    files = [folder / name for name in _file_names(manifest)]
    return all(file.is_file() and file.stat().st_size > 0 for file in files)


def _check_arguments(train: int, val: int, size_px: int, seed: int) -> None:
    limits = {'train': (train, 1), 'val': (val, 1), 'size_px': (size_px, MIN_SIZE_PX), 'seed': (seed, 0)}
    found = [f'{name} = {value}: at least {least}' for name, (value, least) in limits.items() if value < least]
    if found:
        raise UserError(problems('sample data set', found))


def _file_names(manifest: dict[str, Any]) -> Iterator[str]:
    yield CLASSES_FILE
    for split in SPLITS:
        yield f'annotations/instances_{split}.json'
        for number in range(1, manifest[split] + 1):
            yield f'images/{split}/{_stem(number)}.jpg'
            yield f'annotations/{split}/{_stem(number)}.png'


def _stem(number: int) -> str:
    return f'sample_{number:05d}'


def _refuse_foreign_files(folder: Path) -> None:
    """Replacing deletes what is there: only ever our own files."""
    if folder.is_file():
        raise UserError(f'{folder} is a file; name a folder for the sample data set')
    names = (path.relative_to(folder).as_posix() for path in walk_files(folder))
    foreign = sorted(name for name in names if not OWN_FILES.fullmatch(name))
    if foreign:
        raise UserError(
            f'{folder} holds files that are no sample data: {", ".join(foreign[:5])} ({len(foreign)} in all). '
            'Move them away or name another folder; nothing was changed.'
        )


def _write_all(folder: Path, manifest: dict[str, Any]) -> None:
    for split in SPLITS:
        _write_split(folder, split, manifest[split], manifest['size_px'], manifest['seed'])
    (folder / CLASSES_FILE).write_text('\n'.join(SAMPLE_POLICY.classes) + '\n', encoding='utf-8')
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n', encoding='utf-8')


def _write_split(folder: Path, split: str, count: int, size_px: int, seed: int) -> None:
    image_dir, label_dir = folder / 'images' / split, folder / 'annotations' / split
    image_dir.mkdir(parents=True)
    label_dir.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        scene = draw_scene(np.random.default_rng((seed, SPLITS.index(split), number)), size_px)
        file_name = f'{_stem(number)}.jpg'
        # No chroma subsampling: it would smear the finer patterns.
        Image.fromarray(scene.image).save(image_dir / file_name, quality=JPEG_QUALITY, subsampling=0)
        write_palette_png(label_dir / f'{_stem(number)}.png', scene.label, SAMPLE_POLICY.palette)
        images.append({'id': number, 'file_name': file_name, 'width': size_px, 'height': size_px})
        annotations.extend(_annotations(scene, number, len(annotations)))
    content = coco_dict(images, annotations, SAMPLE_POLICY.classes[1:])
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content), encoding='utf-8')


def _annotations(scene: Scene, image_id: int, offset: int) -> Iterator[dict[str, Any]]:
    for index, instance in enumerate(scene.instances, start=offset + 1):
        # Category ids count from 1 without the background, which makes them equal to the class ids.
        yield instance_annotation(instance.mask, instance.class_id, image_id, index)


def _replace(place: Path, ready: Path) -> None:
    """Puts `ready` where `place` is; the old folder is deleted last."""
    old = place.with_name(f'.{place.name}.old-{os.getpid()}')
    if place.exists():
        place.rename(old)
    ready.rename(place)
    shutil.rmtree(old, ignore_errors=True)
