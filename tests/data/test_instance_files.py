from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from internvl_dense.data.instance_files import InstanceFolder, read_coco_ids
from internvl_dense.data.instances import InstanceClasses, Instances
from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.data.prediction_files import PredictionFolder
from internvl_dense.data.rle import decode
from internvl_dense.errors import UserError

pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')

NAMES = InstanceClasses(('tram', 'kite'))
FILES = {'b/y': 'b/y.jpg', 'x': 'x.png'}
IMAGE = np.full((30, 40, 3), 100, dtype=np.uint8)
SETTINGS = {'checkpoint_sha256': 'abc'}


def found(masked: bool = True) -> Instances:
    masks = np.zeros((2, 30, 40), dtype=bool)
    masks[0, 5:9, 4:12] = masks[1, 10:25, 20:33] = True
    return Instances(np.array([[4, 5, 12.5, 9], [20, 10, 33, 25]]), np.array([0.2, 0.75]), np.array([1, 0]),
                     masks if masked else None)


@pytest.fixture
def folder(tmp_path: Path) -> InstanceFolder:
    folder = InstanceFolder(tmp_path / 'out', NAMES, FILES)
    folder.open(SETTINGS)
    return folder


def merged(folder: InstanceFolder) -> dict[str, Any]:
    return json.loads((folder.folder / 'predictions.json').read_text())


def coco_json(path: Path, images: list[tuple[int, str]], names: tuple[str, ...] = ('kite', 'boat', 'tram')) -> Path:
    content = {'images': [{'id': number, 'file_name': name, 'width': 40, 'height': 30} for number, name in images],
               'categories': [{'id': 10 * number, 'name': name} for number, name in enumerate(names, 1)]}
    path.write_text(json.dumps(content))
    return path


def test_objects_of_an_image_are_listed_best_first_and_drawn(folder: InstanceFolder) -> None:
    folder.save('b/y', IMAGE, found())
    row = json.loads((folder.folder / 'instances/b/y.json').read_text())
    assert (row['file_name'], row['width'], row['height']) == ('b/y.jpg', 40, 30)
    assert [entry['category'] for entry in row['instances']] == ['tram', 'kite']
    assert row['instances'][0]['bbox'] == [20, 10, 13, 15] and row['instances'][0]['score'] == 0.75
    np.testing.assert_array_equal(decode(row['instances'][1]['segmentation']), found().masks[0])
    with Image.open(folder.folder / 'overlays/b/y.jpg') as picture:
        assert picture.size == (40 * 12, 30 * 12)  # a small image is enlarged
        assert np.ptp(np.asarray(picture)) > 50
    assert folder.is_done('b/y') and not folder.is_done('x')


def test_all_results_become_one_coco_json(folder: InstanceFolder) -> None:
    folder.save('x', IMAGE, found(masked=False))
    folder.save('b/y', IMAGE, found())
    assert folder.finish().endswith('predictions.json')
    content = merged(folder)
    assert [(image['id'], image['file_name']) for image in content['images']] == [(1, 'b/y.jpg'), (2, 'x.png')]
    assert content['categories'] == [{'id': 1, 'name': 'tram'}, {'id': 2, 'name': 'kite'}]
    assert [(item['image_id'], item['file_name'], item['category_id']) for item in content['predictions']] == [
        (1, 'b/y.jpg', 1), (1, 'b/y.jpg', 2), (2, 'x.png', 1), (2, 'x.png', 2)]
    assert ['segmentation' in item for item in content['predictions']] == [True, True, False, False]


def test_a_stopped_run_continues_and_joins_both_parts(folder: InstanceFolder) -> None:
    folder.save('x', IMAGE, found())
    again = InstanceFolder(folder.folder, NAMES, FILES)
    again.open(SETTINGS)
    assert again.is_done('x') and not again.is_done('b/y')
    again.save('b/y', IMAGE, found().take([]))
    again.finish()
    assert len(merged(again)['images']) == 2 and len(merged(again)['predictions']) == 2


def test_ids_of_an_annotation_file_make_results_that_pycocotools_loads(tmp_path: Path) -> None:
    path = coco_json(tmp_path / 'a.json', [(7, 'val/y.jpg'), (5, 'x.png'), (6, 'other/x.png')])
    folder = InstanceFolder(tmp_path / 'out', NAMES, FILES, read_coco_ids(path, NAMES.classes, list(FILES.values())))
    folder.open(SETTINGS)
    for name in FILES:
        folder.save(name, IMAGE, found())
    folder.finish()
    content = merged(folder)
    assert {image['file_name']: image['id'] for image in content['images']} == {'b/y.jpg': 7, 'x.png': 5}
    loaded = COCO(str(path)).loadRes(content['predictions'])
    assert sorted((item['image_id'], item['category_id']) for item in loaded.anns.values()) == [
        (5, 10), (5, 30), (7, 10), (7, 30)]
    tram = next(item for item in loaded.anns.values() if item['category_id'] == 30)
    assert loaded.annToMask(tram).sum() == 15 * 13


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{', 'no COCO json with images and categories'),
        ('[]', 'no COCO json with images and categories'),
        ('{"images": []}', "KeyError 'categories'"),
        (None, 'cannot be read: No such file'),
    ],
)
def test_annotation_files_that_cannot_be_used(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / 'a.json').write_text(content)
    with pytest.raises(UserError, match=message):
        read_coco_ids(tmp_path / 'a.json', NAMES.classes, [])


def test_classes_and_images_that_the_annotation_file_lacks(tmp_path: Path) -> None:
    path = coco_json(tmp_path / 'a.json', [(1, 'p/y.jpg'), (2, 'q/y.jpg')], ('kite',))
    with pytest.raises(UserError) as caught:
        read_coco_ids(path, NAMES.classes, ['b/y.jpg', 'q/y.jpg', 'x.png'])
    assert '2 problems' in str(caught.value) and "no category 'tram'" in str(caught.value)
    assert '2 of 3 images are not in it, such as b/y.jpg, x.png' in str(caught.value)


def test_results_of_images_that_the_annotation_file_lacks(folder: InstanceFolder, tmp_path: Path) -> None:
    folder.save('x', IMAGE, found())
    ids = read_coco_ids(coco_json(tmp_path / 'a.json', [(1, 'y.jpg')]), NAMES.classes, ['y.jpg'])
    again = InstanceFolder(folder.folder, NAMES, FILES, ids)
    again.open(SETTINGS)
    with pytest.raises(UserError, match=r'holds results of x.png, which .*a.json does not know'):
        again.finish()


def test_results_of_two_kinds_of_models_never_mix(folder: InstanceFolder) -> None:
    folder.save('x', IMAGE, found())
    folder.finish()
    masks = PredictionFolder(folder.folder, LabelPolicy(('sky', 'road')))
    with pytest.raises(UserError, match='checkpoint_sha256: abc there, def now'):
        masks.open({'checkpoint_sha256': 'def'})
    masks.open({'checkpoint_sha256': 'def'}, overwrite=True)
    assert [path.name for path in folder.folder.rglob('*') if path.is_file()] == ['predict.json']
    masks.save('x', IMAGE, np.zeros((30, 40), dtype=np.uint8))
    with pytest.raises(UserError, match='checkpoint_sha256: def there, abc now'):
        folder.open(SETTINGS)
    (folder.folder / 'predict.json').unlink()
    with pytest.raises(UserError, match='holds masks/x.png but no predict.json'):
        folder.open(SETTINGS)
