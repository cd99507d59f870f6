"""One test a row of the table: a split that is good but for one thing, and the message about it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from internvl_dense.data.coco_checks import (
    PAIR_RULES,
    RULES,
    check_coco_split,
    check_coco_splits,
    raise_on_problems,
)
from internvl_dense.data.coco_index import CocoIndex
from internvl_dense.data.rle import encode
from internvl_dense.data.rules import Problem
from internvl_dense.data.sample import SAMPLE_POLICY
from internvl_dense.errors import UserError

WIDTH, HEIGHT = 40, 30
CLASSES = ('tram', 'kite')
Content = dict[str, Any]


def polygon_object(number: int, image: int, category: int, x: float = 5, y: float = 6) -> Content:
    return {'id': number, 'image_id': image, 'category_id': category, 'bbox': [x, y, 12, 10], 'area': 110, 'iscrowd': 0,
            'segmentation': [[x, y, x + 12, y, x + 12, y + 10, x, y + 10]]}


def good() -> Content:
    """Three images with four objects: polygons, a crowd as compressed and one as plain RLE."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[4:20, 8:30] = True
    crowd = {'bbox': [8, 4, 22, 16], 'area': 352, 'iscrowd': 1}
    plain = {'size': [HEIGHT, WIDTH], 'counts': [8 * HEIGHT + 4, *[16, 14] * 21, 16, 10 + 10 * HEIGHT]}
    return {
        'images': [{'id': 10 + i, 'file_name': f'{name}.jpg', 'width': WIDTH, 'height': HEIGHT}
                   for i, name in enumerate(('one', 'three', 'two'))],
        'annotations': [
            polygon_object(1, 10, 3), polygon_object(2, 11, 7, 20, 15),
            {'id': 3, 'image_id': 11, 'category_id': 3, 'segmentation': encode(mask), **crowd},
            {'id': 4, 'image_id': 12, 'category_id': 7, 'segmentation': plain, **crowd},
        ],
        'categories': [{'id': 3, 'name': 'tram'}, {'id': 7, 'name': 'kite'}],
    }


class Split:
    """A folder of images and a json that tests spoil."""

    def __init__(self, root: Path) -> None:
        self.images, self.ann_file = root / 'images', root / 'instances.json'
        self.images.mkdir(parents=True)
        for name in ('one', 'three', 'two'):
            picture = np.random.default_rng(len(name)).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(picture).save(self.images / f'{name}.jpg')
        self.write(good())

    def write(self, content: Any) -> None:
        self.ann_file.write_text(content if isinstance(content, str) else json.dumps(content))

    def check(self, **options: Any) -> list[Problem]:
        return check_coco_split(self.ann_file, self.images, options.pop('classes', CLASSES), **options)

    def spoil(self, change: Callable[[Content], Any], **options: Any) -> list[Problem]:
        content = good()
        change(content)
        self.write(content)
        return self.check(**options)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return Split(tmp_path / 'data')


def only(found: list[Problem], *rules: str) -> Problem:
    """The first problem, once it is sure that these rules spoke and no other."""
    assert [problem.rule for problem in found] == list(rules), [str(problem) for problem in found]
    return found[0]


def annotation(**changes: Any) -> Callable[[Content], Any]:
    """Changes the first object; None takes an entry away."""
    def change(content: Content) -> None:
        for key, value in changes.items():
            if value is None:
                del content['annotations'][0][key]
            else:
                content['annotations'][0][key] = value
    return change


def test_names_are_unique_and_every_rule_says_what_it_checks() -> None:
    rules = [*RULES, *PAIR_RULES]
    assert len({rule.name for rule in rules}) == len(rules)
    assert all(rule.checks.endswith('.') for rule in rules)


def test_a_good_split_has_no_problems(split: Split) -> None:
    assert split.check() == split.check(masks=True) == []


def test_json_missing_names_its_neighbours(split: Split) -> None:
    problem = only(check_coco_split(split.ann_file.with_name('instance.json'), split.images, CLASSES), 'json_missing')
    assert problem.severity == 'error' and 'holds instances.json' in problem.message
    problem = only(check_coco_split(split.images / 'no' / 'a.json', split.images, CLASSES), 'json_missing')
    assert 'is no folder' in problem.message


@pytest.mark.parametrize('content', ['', '{"images": [', '<html>', '\ufeff{', '[' * 100_000])
def test_json_unreadable(split: Split, content: str) -> None:
    split.write(content)
    assert 'no json' in only(split.check(), 'json_unreadable').message


def test_json_that_is_no_text(split: Split) -> None:
    split.ann_file.write_bytes(b'\xff\xfe\x00\x81')
    assert 'no json' in only(split.check(), 'json_unreadable').message


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([{'image_id': 1, 'score': 0.5}], 'it holds a list, as files of results are'),
        ('"text"', 'it holds str'),
        ({'images': [], 'annotations': {}, 'info': 1}, 'no list annotations, categories; found: images, annotations'),
    ],
)
def test_json_structure(split: Split, content: Any, message: str) -> None:
    split.write(content)
    found = split.check()
    assert found[0].rule == 'json_structure' and message in found[0].message


def test_entries_that_are_no_objects(split: Split) -> None:
    problem = only(split.spoil(lambda content: content['annotations'].append('x')), 'json_structure')
    assert '1 of 5 entries of annotations are no objects' in problem.message


@pytest.mark.parametrize(
    ('key', 'change', 'message'),
    [
        ('images', {'width': '40'}, "images[0]: width = '40'"),
        ('images', {'height': 0}, "images[0]: height = '0'"),
        ('annotations', {'category_id': 3.0}, "annotations[0]: category_id = '3.0'"),
        ('annotations', {'image_id': None}, "annotations[0]: image_id = 'None'"),
        ('annotations', {'id': 2**64}, f"annotations[0]: id = '{2**64}'"),
        ('categories', {'id': '3'}, "categories[0]: id = '3'"),
    ],
)
def test_entry_incomplete(split: Split, key: str, change: Content, message: str) -> None:
    found = split.spoil(lambda content: content[key][0].update(change))
    assert found[0].rule == 'entry_incomplete' and message in found[0].message


@pytest.mark.parametrize(('key', 'rest'), [('images', 'annotation_without_image'), ('annotations', None)])
def test_nothing_in_it(split: Split, key: str, rest: str | None) -> None:
    found = split.spoil(lambda content: content[key].clear())
    assert found[0].rule == 'nothing_in_it' and f'{key} empty' in found[0].message
    assert {problem.rule for problem in found[1:]} == ({rest} if rest else set())


@pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
def test_id_twice(split: Split, key: str) -> None:
    found = split.spoil(lambda content: content[key].append(copy.deepcopy(content[key][0])))
    assert found[0].rule == 'id_twice' and f'2 {key} have the id {good()[key][0]["id"]}' in found[0].message


def test_annotation_id_zero_is_a_warning(split: Split) -> None:
    assert only(split.spoil(annotation(id=0)), 'annotation_id_zero').severity == 'warning'


def test_annotation_without_image(split: Split) -> None:
    found = split.spoil(annotation(image_id=99))
    assert 'annotation 1: no image has the id 99' in only(
        found, 'annotation_without_image', 'image_without_objects').message


def test_annotation_without_category(split: Split) -> None:
    problem = only(split.spoil(annotation(category_id=4)), 'annotation_without_category')
    assert 'annotation 1 (one.jpg): no category has the id 4' in problem.message and '3, 7' in problem.message


def test_category_name_twice(split: Split) -> None:
    found = split.spoil(lambda content: content['categories'].append({'id': 8, 'name': 'kite'}))
    assert "2 categories are called 'kite'" in only(found, 'category_name_twice').message


def test_class_without_category_names_the_near_one(split: Split) -> None:
    found = split.check(classes=('Tram', 'kite'))
    problem = only(found, 'class_without_category', 'category_without_class')
    assert "'Tram' (the json has 'tram')" in problem.message and problem.severity == 'error'
    assert "'tram' (2 objects)" in found[1].message and found[1].severity == 'warning'


def test_class_order_names_the_first_difference(split: Split) -> None:
    problem = only(split.check(classes=('kite', 'tram')), 'class_order')
    assert "the config calls label 0 'kite', and by the order of the json it is 'tram'" in problem.message
    assert "('tram', 'kite')" in problem.message


def test_some_of_the_categories_are_enough(split: Split) -> None:
    assert only(split.check(classes=('kite',)), 'category_without_class').severity == 'warning'


def test_class_absent_is_a_warning(split: Split) -> None:
    found = split.spoil(lambda content: content['categories'].append({'id': 9, 'name': 'boat'}),
                        classes=(*CLASSES, 'boat'))
    assert '1 of 3 classes have no object: boat' in only(found, 'class_absent').message


@pytest.mark.parametrize(
    'box', [None, {}, [1, 2, 3], [1, 2, 3, float('nan')], [1, 2, 3, 'x'], [1, 2, 3, 10**400], [1, 2, 3, True]])
def test_box_malformed(split: Split, box: Any) -> None:
    assert 'annotation 1 (one.jpg): bbox = ' in only(split.spoil(annotation(bbox=box)), 'box_malformed').message


def test_boxes_are_corners(split: Split) -> None:
    def corners(content: Content) -> None:
        boxes = [[20, 10, 35, 28], [22, 12, 36, 25], [15, 9, 38, 27], [3, 4, 9, 9]]
        for item, (x, y, right, bottom) in zip(content['annotations'], boxes, strict=True):
            item.update(bbox=[x, y, right, bottom], area=1, segmentation=[[x, y, right, y, right, bottom]])
    found = split.spoil(corners)
    assert found[0].rule == 'boxes_are_corners' and 'most of the 4 leave their image' in found[0].message
    assert 'annotation 1 (one.jpg): [20, 10, 35, 28] in 40x30' in found[0].message
    assert {problem.rule for problem in found[1:]} == {'mask_away_from_box'}


def test_box_negative(split: Split) -> None:
    assert '[5, 6, -12, 10]' in only(split.spoil(annotation(bbox=[5, 6, -12, 10])), 'box_negative').message


@pytest.mark.parametrize('width', [0, 0.4])
def test_box_too_small_is_a_warning(split: Split, width: float) -> None:
    found = split.spoil(annotation(bbox=[5, 6, width, 10], area=0.5, segmentation=[[5, 6, 5.5, 6, 5.5, 16]]))
    assert only(found, 'box_too_small').severity == 'warning'


@pytest.mark.parametrize('box', [[50, 6, 12, 10], [-20, 6, 20, 10], [5, 31, 12, 10]])
def test_box_outside(split: Split, box: list[float]) -> None:
    x, y, width, height = box
    found = split.spoil(annotation(bbox=box, segmentation=[[x, y, x + width, y, x, y + height]]))
    assert 'lies outside the image of 40x30' in only(found, 'box_outside').message


def test_box_over_edge_is_a_warning_beyond_a_pixel(split: Split) -> None:
    problem = only(split.spoil(annotation(bbox=[-6.5, 6, 20, 10], segmentation=[[-6, 6, 13, 6, 13, 16]])),
                   'box_over_edge')
    assert problem.severity == 'warning' and '6.5 px beyond' in problem.message
    assert split.spoil(annotation(bbox=[28.5, 20.9, 12, 10], segmentation=[[28, 20, 40, 20, 40, 30]])) == []


@pytest.mark.parametrize('area', [None, 'large', float('nan')])
def test_area_missing(split: Split, area: Any) -> None:
    assert 'annotation 1 (one.jpg): area = ' in only(split.spoil(annotation(area=area)), 'area_missing').message


def test_area_not_positive_and_area_above_box(split: Split) -> None:
    assert only(split.spoil(annotation(area=0)), 'area_not_positive').severity == 'warning'
    problem = only(split.spoil(annotation(area=5000)), 'area_above_box')
    assert 'area = 5000 is more than its box of 12 x 10 px has' in problem.message


@pytest.mark.parametrize('flag', [2, -1, 'no', 0.0])
def test_crowd_flag_wrong(split: Split, flag: Any) -> None:
    assert f'iscrowd = {str(flag)!r}' in only(split.spoil(annotation(iscrowd=flag)), 'crowd_flag_wrong').message


def test_only_crowds(split: Split) -> None:
    found = split.spoil(lambda content: [item.update(iscrowd=1) for item in content['annotations']])
    assert 'all 4 objects are crowds' in only(found, 'only_crowds').message


def test_crowd_flag_missing_is_one_warning(split: Split) -> None:
    found = split.spoil(lambda content: [item.pop('iscrowd') for item in content['annotations']])
    problem = only(found, 'crowd_flag_missing')
    assert problem.severity == 'warning' and '4 of 4 annotations have no iscrowd' in problem.message


@pytest.mark.parametrize('nothing', [None, []])
def test_mask_missing_matters_where_masks_are_trained(split: Split, nothing: Any) -> None:
    change = annotation(segmentation=nothing)
    assert only(split.spoil(change, masks=True), 'mask_missing').severity == 'error'
    problem = only(split.spoil(change), 'mask_missing_in_part')
    assert problem.severity == 'warning' and '1 of 4 objects' in problem.message
    assert split.spoil(lambda content: [item.pop('segmentation') for item in content['annotations']]) == []


@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        ([[5, 6, 17, 6]], 'polygon 1 of 1 has 4 numbers'),
        ([[5, 6, 17, 6, 17, 16], [5, 6, 17, 6, 17, 16, 1]], 'polygon 2 of 2 has 7 numbers'),
        ([5, 6, 17, 6, 17, 16], 'not a list: a single polygon needs [[x0'),
        ([[5, 6, 17, 6, 17, float('nan')]], 'polygon 1 of 1 holds NaN'),
        ([[5, 6, 17, 6, 17, '16']], 'holds something else than numbers'),
        ([[5, 6, 17, 6, 17, [16]]], 'holds something else than numbers'),
        ([[]], 'has 0 numbers'),
        ('mask.png', "segmentation = 'mask.png'"),
    ],
)
def test_polygon_malformed(split: Split, segmentation: Any, message: str) -> None:
    assert message in only(split.spoil(annotation(segmentation=segmentation)), 'polygon_malformed').message


@pytest.mark.parametrize(
    ('code', 'message'),
    [
        ({'size': [WIDTH, HEIGHT], 'counts': [1200]}, 'it is width before height there'),
        ({'size': [10, 10], 'counts': [100]}, 'its RLE has size [10, 10], the image is [30, 40]'),
        ({'size': [HEIGHT, WIDTH], 'counts': [100, 5]}, 'cover 105 pixels, the image has 1200'),
        ({'size': [HEIGHT, WIDTH], 'counts': 'a b'}, 'its RLE is damaged: the text'),
        ({'size': [HEIGHT, WIDTH], 'counts': [-5, 1205]}, 'a run of a mask has -5 pixels'),
        ({'size': [HEIGHT, WIDTH]}, 'its RLE is damaged'),
        ({}, 'its RLE has size None'),
    ],
)
def test_rle_malformed(split: Split, code: Any, message: str) -> None:
    assert message in only(split.spoil(annotation(segmentation=code)), 'rle_malformed').message


@pytest.mark.parametrize('empty', [{'size': [HEIGHT, WIDTH], 'counts': [1200]}, [[5, 6, 17, 6, 10, 6]]])
def test_mask_empty_is_a_warning(split: Split, empty: Any) -> None:
    assert only(split.spoil(annotation(segmentation=empty)), 'mask_empty').severity == 'warning'


def test_masks_of_another_object(split: Split) -> None:
    problem = only(split.spoil(annotation(segmentation=[[25, 20, 35, 20, 35, 28]])), 'mask_outside_box')
    assert problem.severity == 'error' and 'covers [25, 20, 10, 8], the box is [5, 6, 12, 10]' in problem.message
    problem = only(split.spoil(annotation(segmentation=[[12, 10, 30, 10, 30, 20]])), 'mask_away_from_box')
    assert problem.severity == 'warning' and '% in common' in problem.message


def test_folder_missing(split: Split) -> None:
    found = check_coco_split(split.ann_file, split.images.with_name('imagse'), CLASSES)
    assert 'holds the folders images' in only(found, 'folder_missing').message


def test_image_missing_names_the_nearest(split: Split) -> None:
    (split.images / 'two.jpg').rename(split.images / 'two.jpeg')
    problem = only(split.check(), 'image_missing')
    assert problem.file == split.images / 'two.jpg' and 'Near: two.jpeg' in problem.message
    shutil.move(split.images / 'two.jpeg', split.images / 'two.jpg')
    found = split.spoil(lambda content: content['images'][0].update(file_name='train/one.jpg'))
    assert 'Near: one.jpg' in only(found, 'image_missing').message
    only(split.spoil(lambda content: content['images'][0].update(file_name='x' * 5000)), 'image_missing')


def test_file_name_twice_is_a_warning(split: Split) -> None:
    found = split.spoil(lambda content: content['images'][0].update(file_name='two.jpg'))
    assert '2 images are the file two.jpg (ids 10, 12)' in only(found, 'file_name_twice').message


@pytest.mark.parametrize('content', [b'', b'<html></html>', None])
def test_image_unreadable(split: Split, content: bytes | None) -> None:
    path = split.images / 'two.jpg'
    path.write_bytes(path.read_bytes()[:-60] if content is None else content)
    assert only(split.check(), 'image_unreadable').file == path


def test_image_unusual_is_a_warning(split: Split) -> None:
    cv2.imwrite(str(split.images / 'one.png'), np.zeros((HEIGHT, WIDTH, 4), np.uint8))
    found = split.spoil(lambda content: content['images'][0].update(file_name='one.png'))
    assert only(found, 'image_unusual').severity == 'warning'


def test_size_differs(split: Split) -> None:
    Image.new('RGB', (WIDTH + 2, HEIGHT)).save(split.images / 'one.jpg')
    problem = only(split.check(), 'size_differs')
    assert 'the json says 40x30, the image is 42x30' in problem.message and 'EXIF' not in problem.message


def test_size_differs_by_the_exif_rotation(split: Split) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (WIDTH, HEIGHT)).save(split.images / 'one.jpg', exif=exif)
    assert 'is 30x40 after its EXIF orientation 6' in only(split.check(), 'size_differs').message


def test_images_without_objects_are_noted(split: Split) -> None:
    problem = only(split.spoil(lambda content: content['annotations'].pop()), 'image_without_objects')
    assert problem.severity == 'note' and '1 of 3 images have no object, such as two.jpg' in problem.message


def test_a_sample_is_noted_and_missing_files_are_found_beyond_it(split: Split) -> None:
    assert 'read 1 of 3 images' in only(split.check(max_files=1), 'not_all_checked').message
    (split.images / 'two.jpg').unlink()
    assert [problem.rule for problem in split.check(max_files=1)] == ['image_missing', 'not_all_checked']


def test_an_image_in_two_splits_is_found_by_its_content(split: Split, tmp_path: Path) -> None:
    other = Split(tmp_path / 'other')
    for name in ('one.jpg', 'three.jpg'):  # the same names, other pictures
        Image.new('RGB', (WIDTH, HEIGHT)).save(other.images / name)
    indexes = [CocoIndex(item.ann_file, item.images, CLASSES) for item in (split, other)]
    problem = only(check_coco_splits(indexes), 'image_in_both')
    assert problem.severity == 'warning' and f'1 of 3 images are also in {split.ann_file}, such as two.jpg' in (
        problem.message)


def test_all_faults_come_in_one_message_with_their_number(split: Split) -> None:
    def change(content: Content) -> None:
        for item in content['annotations']:
            item['bbox'][2] = -1
        content['annotations'][0].update(area='x', image_id=98)
    with pytest.raises(UserError) as caught:
        raise_on_problems(split.spoil(change), 'instances')
    message = str(caught.value)
    assert 'error box_negative (3 times)' in message
    assert 'error area_missing' in message and 'error annotation_without_image' in message


def test_the_sample_data_set_passes(sample_root: Path) -> None:
    indexes = [CocoIndex(sample_root / f'annotations/instances_{split}.json', sample_root / 'images' / split,
                         SAMPLE_POLICY.classes[1:], masks=True) for split in ('training', 'validation')]
    assert check_coco_splits(indexes) == []


def test_real_street_scenes_pass(shared_dir: Path) -> None:
    root = shared_dir / 'data/camvid'
    classes = ('sign symbol', 'car', 'pedestrian', 'bicyclist')
    found = check_coco_splits([CocoIndex(root / f'instances_{split}.json', root / 'images' / split, classes, True)
                               for split in ('train', 'val')])
    assert 'no object' in only(found, 'image_without_objects').message


# Anything that json can hold, in place of any value of a good file.
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(['id', 'size', 'counts']), inner),
    max_leaves=5)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_content_makes_a_rule_fail(split: Split, data: st.DataObject) -> None:
    content = good()
    for _ in range(data.draw(st.integers(1, 3))):
        holder: Any = content[data.draw(st.sampled_from(sorted(content)))]
        holder = holder[data.draw(st.integers(0, len(holder) - 1))]
        if isinstance(holder, dict):
            holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(JUNK)
    split.write(content)
    split.check(masks=True)
