from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from internvl_dense.data.prepare.coco import COCO, check_instances
from internvl_dense.data.prepare.entries import Entry
from internvl_dense.data.prepare.folders import FolderSource
from internvl_dense.data.prepare.layouts import Content, Selection, Task
from internvl_dense.errors import UserError
from tests.data.prepare import miniatures

Rows = dict[str, list[dict[str, object]]]


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Content]:
    source = FolderSource(tmp_path)

    def call(content: object, partial: bool = False, names: list[str] | None = None) -> Content:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        part = next(part for part in COCO.parts if part.name == 'instances_val2017.json')
        stems = {'val2017 images': frozenset(miniatures.coco_names('val') if names is None else names)}
        task = Task(part, 'instances_val2017', Entry(source, 'annotations/instances_val2017.json', len(data)))
        return check_instances(data, task, Selection(COCO, miniatures.COUNTS, partial, stems, (task,)))

    return call


def test_good_annotations_stay_as_they_are(check: Callable[..., Content]) -> None:
    data = json.dumps(miniatures.instances('val')).encode()
    content = check(data)
    assert content.data is data and content.notes == ()


def test_images_without_entry_are_noted(check: Callable[..., Content]) -> None:
    content = check(miniatures.instances('val'), names=[*miniatures.coco_names('val'), '000000000999'])
    assert content.notes == (
        '1 images of val2017 have no entry in instances_val2017.json: 000000000999.jpg',)


def test_entries_without_image_are_an_error_or_left_out(check: Callable[..., Content]) -> None:
    names = miniatures.coco_names('val')[:1]
    with pytest.raises(UserError, match=r'1 of 2 images are not in val2017: 000000000285\.jpg'):
        check(miniatures.instances('val'), names=names)
    content = check(miniatures.instances('val'), partial=True, names=names)
    assert [row['file_name'] for row in json.loads(content.data)['images']] == ['000000000139.jpg']
    assert 'left out' in content.notes[0]


def changed(change: Callable[[Rows], object]) -> Rows:
    content = miniatures.instances('val')
    change(content)
    return content


@pytest.mark.parametrize(('content', 'message'), [
    (b'', 'no complete json file'),
    (b'{"images": [1, 2', 'no complete json file'),
    (b'\xff\xfe\x00', 'no complete json file'),
    ({'images': [], 'annotations': []}, 'the lists images, annotations, categories'),
    (changed(lambda rows: rows['images'].append({'id': 1})), '1 of 3 images have no file_name'),
    (changed(lambda rows: rows['annotations'][0].pop('image_id')), '1 of 2 annotations have no image_id'),
    (changed(lambda rows: rows['categories'].__setitem__(3, 'dog')), '1 of 80 categories have no id'),  # type: ignore
    (changed(lambda rows: rows['categories'].pop()), '79 categories, 80 expected'),
    (changed(lambda rows: rows['categories'][0].update(id=2)), '1 category ids occur more than once: 2'),
    (changed(lambda rows: rows['images'][0].update(id=285)), '1 image ids occur more than once: 285'),
    (changed(lambda rows: rows['images'].append({'id': 5, 'file_name': '000000000139.jpg'})),
     r'1 file names occur more than once: 000000000139\.jpg'),
    (changed(lambda rows: rows['annotations'][0].update(id=1)), '1 annotation ids occur more than once: 1'),
    (changed(lambda rows: rows['annotations'][0].update(image_id=4)),
     '1 annotations with image_id that is not among the images: 0'),
    (changed(lambda rows: rows['annotations'][1].update(category_id=91)),
     '1 annotations with category_id that is not among the categories: 1'),
])
def test_faults(check: Callable[..., Content], content: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(content)


def test_all_faults_come_at_once(check: Callable[..., Content]) -> None:
    content = changed(lambda rows: (rows['categories'].pop(), rows['annotations'][0].update(image_id=4)))
    with pytest.raises(UserError, match='2 problems'):
        check(content)
