"""Tiny data sets in the layout of the published archives: 3 training and 2 validation images."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from internvl_dense.data.prepare.layouts import Counts

COUNTS = Counts(train=3, val=2)
SIZE = (24, 16)  # width, height
Files = dict[str, bytes]


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return saved(pixels, 'JPEG')


def saved(array: np.ndarray, kind: str = 'PNG', **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=kind, **options)
    return buffer.getvalue()


def ids(seed: int, values: object) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.asarray(values, dtype=np.uint8), (SIZE[1], SIZE[0]))


def ade20k() -> Files:
    """Content of ADEChallengeData2016.zip."""
    files = {'objectInfo150.txt': b'Idx\tRatio\n', 'sceneCategories.txt': b'ADE_train_00000001 abbey\n'}
    for folder, prefix, number in (('training', 'ADE_train', COUNTS.train), ('validation', 'ADE_val', COUNTS.val)):
        for index in range(1, number + 1):
            name = f'{folder}/{prefix}_{index:08d}'
            files[f'images/{name}.jpg'] = jpeg(index)
            files[f'annotations/{name}.png'] = saved(ids(index, range(151)))
    return {f'ADEChallengeData2016/{name}': data for name, data in files.items()}


def coco_names(split: str) -> list[str]:
    """COCO's names are twelve digits and leave numbers out."""
    return [f'{index:012d}' for index in ((9, 25, 30) if split == 'train' else (139, 285))]


def coco_images(split: str) -> Files:
    """Content of train2017.zip or val2017.zip."""
    return {f'{split}2017/{name}.jpg': jpeg(int(name)) for name in coco_names(split)}


def stuff_maps() -> Files:
    """Content of stuffthingmaps_trainval2017.zip; ids of all classes, and 255."""
    removed = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
    values = [number - 1 for number in range(1, 183) if number not in removed] + [255]
    return {f'{split}2017/{name}.png': saved(ids(int(name), values))
            for split in ('train', 'val') for name in coco_names(split)}


def instances(split: str) -> dict[str, list[dict[str, object]]]:
    """What instances_train2017.json holds."""
    images = [{'id': int(name), 'file_name': f'{name}.jpg', 'width': SIZE[0], 'height': SIZE[1]}
              for name in coco_names(split)]
    annotations = [
        {'id': index, 'image_id': image['id'], 'category_id': 1 + index, 'bbox': [1, 1, 5, 5], 'area': 25, 'iscrowd': 0,
         'segmentation': [[1, 1, 6, 1, 6, 6, 1, 6]]} for index, image in enumerate(images)]
    return {'images': images, 'annotations': annotations,
            'categories': [{'id': number, 'name': f'class {number}'} for number in range(1, 81)]}


def coco_annotations() -> Files:
    """Content of annotations_trainval2017.zip."""
    files = {f'annotations/instances_{split}2017.json': json.dumps(instances(split)).encode()
             for split in ('train', 'val')}
    return {**files, 'annotations/captions_val2017.json': b'{}'}


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """With entries for folders, as the published ones have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for folder in sorted({f'{name.rpartition("/")[0]}/' for name in files if '/' in name}):
            archive.writestr(folder, b'')
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Names begin with './', as those of `tar cf X .` do; compressed if the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w:gz' if path.suffix in ('.gz', '.tgz') else 'w') as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f'./{name}')
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def write_archives(folder: Path, data_set: str) -> Path:
    """The archives that one downloads for a data set."""
    if data_set == 'ade20k':
        write_zip(folder / 'ADEChallengeData2016.zip', ade20k())
        return folder
    for split in ('train', 'val'):
        write_zip(folder / f'{split}2017.zip', coco_images(split))
    if data_set == 'coco':
        write_zip(folder / 'annotations_trainval2017.zip', coco_annotations())
    else:
        write_zip(folder / 'stuffthingmaps_trainval2017.zip', stuff_maps())
    return folder


def unpack(archives: Path, folder: Path) -> Path:
    """What a user's `unzip` makes of them."""
    for archive in sorted(archives.glob('*.zip')):
        shutil.unpack_archive(archive, folder)
    return folder


def tree(folder: Path) -> dict[str, str]:
    """Path -> hash of its bytes, for all files."""
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob('*')) if path.is_file()}


def without_record(files: Mapping[str, str]) -> dict[str, str]:
    """Records name sources and dates."""
    return {name: digest for name, digest in files.items() if not name.endswith('prepared.json')}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Path -> inode and time of change."""
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(folder.rglob('*'))}
