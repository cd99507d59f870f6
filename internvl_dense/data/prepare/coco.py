"""COCO 2017 detection: 80 classes, images and instance annotations that belong together."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from internvl_dense.data.prepare.coco_names import ARCHIVE_PAGE, COUNTS, IMAGE_LICENCE, images, split_folder
from internvl_dense.data.prepare.layouts import Content, Layout, Part, Selection, Split, Task, WrongRelease
from internvl_dense.data.prepare.member_rules import MAX_MEMBER_BYTES
from internvl_dense.errors import UserError, problems

# https://cocodataset.org/#detection-2017: 80 object categories, with ids up to 90.
NUM_CLASSES = 80
LISTS = ('images', 'annotations', 'categories')
RIGHT_ONE = f'get annotations_trainval2017.zip from {ARCHIVE_PAGE} ("2017 Train/Val annotations")'
LICENCE = f'{IMAGE_LICENCE} COCO annotations: Creative Commons Attribution 4.0, as the same page says.'


def check_instances(data: bytes, task: Task, selection: Selection) -> Content:
    """The annotations of a split, read in full and compared with its images.

    With `selection.partial`, images that are not there are left out, with their annotations.

    Raises:
        UserError: No COCO annotations, other than 80 categories, images that are not there, or entries that refer to
            nothing; all problems at once.
    """
    content = _parse(data)
    folder = split_folder(task.part.split or 'train')
    there = {f'{stem}.jpg' for stem in selection.stems[f'{folder} images']}
    listed = [row['file_name'] for row in content['images']]
    absent = sorted(set(listed) - there)
    faults = list(_faults(content))
    if absent and not selection.partial:
        faults.append(f'{len(absent)} of {len(listed)} images are not in {folder}: {_shown(absent)}')
    if faults:
        raise UserError(problems('annotations', faults))
    unlisted = sorted(there - set(listed))
    notes = [f'{len(unlisted)} images of {folder} have no entry in {task.target.name}: {_shown(unlisted)}']
    notes = notes if unlisted else []
    if not absent:
        return Content(data, tuple(notes))
    notes.append(f'{task.target.name}: {len(absent)} of {len(listed)} images left out, which are not in {folder}')
    return Content(_without(content, set(absent)), tuple(notes))


def _parse(data: bytes) -> dict[str, Any]:
    """The file's object, with every field that is used below."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f'no complete json file ({error})') from None
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in LISTS):
        raise UserError(f'no COCO annotations: an object with the lists {", ".join(LISTS)} is expected')
    wanted = (('images', 'id', int), ('images', 'file_name', str), ('annotations', 'id', int),
              ('annotations', 'image_id', int), ('annotations', 'category_id', int), ('categories', 'id', int))
    for name, key, kind in wanted:
        wrong = sum(not isinstance(row, dict) or not isinstance(row.get(key), kind) for row in content[name])
        if wrong:
            raise UserError(f'{wrong} of {len(content[name])} {name} have no {key}')
    return content


def _faults(content: dict[str, Any]) -> Iterator[str]:
    categories = [row['id'] for row in content['categories']]
    if len(categories) != NUM_CLASSES:
        yield f'{len(categories)} categories, {NUM_CLASSES} expected; {RIGHT_ONE}'
    yield from _repeated('category ids', categories)
    yield from _repeated('image ids', (row['id'] for row in content['images']))
    yield from _repeated('file names', (row['file_name'] for row in content['images']))
    yield from _repeated('annotation ids', (row['id'] for row in content['annotations']))
    yield from _unknown('images', 'image_id', content)
    yield from _unknown('categories', 'category_id', content)


def _repeated(what: str, values: Iterable[object]) -> Iterator[str]:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        yield f'{len(twice)} {what} occur more than once: {_shown(twice)}'


def _unknown(name: str, key: str, content: dict[str, Any]) -> Iterator[str]:
    known = {row['id'] for row in content[name]}
    unknown = [row['id'] for row in content['annotations'] if row[key] not in known]
    if unknown:
        yield f'{len(unknown)} annotations with {key} that is not among the {name}: {_shown(unknown)}'


def _without(content: dict[str, Any], absent: set[str]) -> bytes:
    kept = [row for row in content['images'] if row['file_name'] not in absent]
    ids = {row['id'] for row in kept}
    annotations = [row for row in content['annotations'] if row['image_id'] in ids]
    return json.dumps({**content, 'images': kept, 'annotations': annotations}).encode()


def _shown(values: Iterable[object], limit: int = 5) -> str:
    rows = [str(value) for value in values]
    return ', '.join(rows[:limit]) + (', ...' if len(rows) > limit else '')


def _instances(split: Split) -> Part:
    name = f'instances_{split_folder(split)}'
    return Part(
        name=f'{name}.json',
        split=split,
        pattern=re.compile(rf'(?:^|/)(?P<stem>{name})\.json$'),
        example=f'{name}.json',
        target=f'annotations/{name}.json',
        treat=check_instances,
        single=True,
        max_bytes=MAX_MEMBER_BYTES,
    )


COCO = Layout(
    name='coco',
    folder='coco',
    counts=COUNTS,
    parts=(
        _instances('val'), _instances('train'),
        images('val', split_folder('val')), images('train', split_folder('train')),
    ),
    wrong=(
        WrongRelease(
            re.compile(r'(?:^|/)(?:COCO_(?:train|val)2014_\d{12}\.jpg|instances_(?:train|val)2014\.json)$'), '',
            'COCO 2014, whose splits are others', f'{RIGHT_ONE}, with train2017.zip and val2017.zip'),
        WrongRelease(
            re.compile(r'(?:^|/)(?:stuff|panoptic)_(?:train|val)2017(?:_pixelmaps)?(?:/|\.json$|\.zip$)'), 'instances',
            'stuff or panoptic annotations, which have no instances of the 80 classes', RIGHT_ONE),
        WrongRelease(
            re.compile(r'(?:^|/)(?:train|val)2017/\d{12}\.png$'), 'instances',
            'label maps of COCO-Stuff, which have no instances', RIGHT_ONE),
        WrongRelease(
            re.compile(r'(?:^|/)(?:test2017/\d{12}\.jpg|image_info_test\S*2017\.json)$'), '',
            'the test split, which has no annotations', f'{RIGHT_ONE}, with train2017.zip and val2017.zip'),
    ),
    archives=f'{RIGHT_ONE}, and train2017.zip and val2017.zip from there',
    licence=LICENCE,
)
