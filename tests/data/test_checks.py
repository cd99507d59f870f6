"""One test a row of the table: a split that is good but for one thing, and the message about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from internvl_dense.data.checks import RULES, check_dataset, check_split, raise_on_problems
from internvl_dense.data.drawing import write_palette_png
from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.data.rules import Problem
from internvl_dense.data.split_files import SampleIndex
from internvl_dense.errors import UserError

HEIGHT, WIDTH = 12, 20


def only(found: list[Problem], rule: str) -> list[Problem]:
    """The problems, once it is sure that no other rule spoke."""
    assert [problem.rule for problem in found] == [rule] * len(found), [str(problem) for problem in found]
    assert found
    return found


def test_names_are_unique_and_every_rule_says_what_it_checks() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.checks.endswith('.') for rule in RULES)


def test_a_good_split_has_no_problems(split: Any) -> None:
    assert check_split(split.index()) == []


def test_folder_missing_names_the_neighbours(split: Any) -> None:
    index = SampleIndex(split.images.parent / 'imagse', split.labels, split.policy)
    [problem] = only(check_split(index), 'folder_missing')
    assert problem.severity == 'error'
    assert 'holds the folders images' in problem.message
    index = SampleIndex(split.images, split.labels.parent / 'annotations' / 'training', split.policy)
    [problem] = only(check_split(index), 'folder_missing')
    assert 'the label folder does not exist' in problem.message


def test_no_images_counts_what_is_there(split: Any) -> None:
    [problem] = only(check_split(split.index(image_suffixes=('.jpeg', '.JPG'))), 'no_images')
    assert '0 images match *.jpeg, *.JPG' in problem.message
    assert '3 .jpg' in problem.message


def test_image_twice(split: Any) -> None:
    (split.images / 'one.jpeg').write_bytes((split.images / 'one.jpg').read_bytes())
    [problem] = only(check_split(split.index(image_suffixes=('.jpg', '.jpeg'))), 'image_twice')
    assert problem.file == split.images / 'one.jpg'
    assert 'one.jpeg' in problem.message


def test_name_not_found_in_a_list(split: Any) -> None:
    [problem] = only(check_split(split.index(names=('one', 'thre'))), 'name_not_found')
    assert "'thre'" in problem.message
    assert 'three.jpg' in problem.message


def test_image_without_label_names_the_file_with_another_suffix(split: Any) -> None:
    (split.labels / 'one.png').rename(split.labels / 'one_labelTrainIds.png')
    found = check_split(split.index())
    assert [problem.rule for problem in found] == ['image_without_label', 'label_without_image']
    assert found[0].file == split.images / 'one.jpg'
    assert 'no label one.png' in found[0].message
    assert 'Near: one_labelTrainIds.png' in found[0].message


def test_label_without_image_is_a_warning(split: Any) -> None:
    (split.images / 'two.jpg').rename(split.images / 'two.jpeg')
    [problem] = only(check_split(split.index()), 'label_without_image')
    assert problem.severity == 'warning'
    assert problem.file == split.labels / 'two.png'
    assert 'Near: two.jpeg' in problem.message


@pytest.mark.parametrize('content', [b'', b'<html></html>', None])
def test_image_unreadable(split: Any, content: bytes | None) -> None:
    path = split.images / 'two.jpg'
    path.write_bytes(path.read_bytes()[:-60] if content is None else content)
    [problem] = only(check_split(split.index()), 'image_unreadable')
    assert problem.file == path


@pytest.mark.parametrize(
    ('array', 'word'),
    [
        (np.zeros((HEIGHT, WIDTH, 4), np.uint8), 'transparency'),
        (np.zeros((HEIGHT, WIDTH), np.uint16), '16-bit'),
    ],
)
def test_image_unusual_is_a_warning(split: Any, array: np.ndarray, word: str) -> None:
    cv2.imwrite(str(split.images / 'one.png'), array)
    (split.images / 'one.jpg').unlink()
    [problem] = only(check_split(split.index(image_suffixes=('.jpg', '.png'))), 'image_unusual')
    assert problem.severity == 'warning'
    assert word in problem.message


def test_animations_are_unusual(split: Any) -> None:
    frames = [Image.new('L', (WIDTH, HEIGHT), grey) for grey in (0, 90)]
    frames[0].save(split.images / 'one.gif', save_all=True, append_images=frames[1:])
    (split.images / 'one.jpg').unlink()
    [problem] = only(check_split(split.index(image_suffixes=('.jpg', '.gif'))), 'image_unusual')
    assert '2 frames' in problem.message


@pytest.mark.parametrize('content', [b'', b'no image'])
def test_label_unreadable(split: Any, content: bytes) -> None:
    (split.labels / 'one.png').write_bytes(content)
    [problem] = only(check_split(split.index()), 'label_unreadable')
    assert problem.file == split.labels / 'one.png'


def test_label_has_colours(split: Any) -> None:
    ids = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    split.save_label('one.png', ids)
    ids[0, 0] = 1, 2, 3
    split.save_label('two.png', ids)
    equal, different = only(check_split(split.index()), 'label_has_colours')
    assert 'All channels are equal' in equal.message
    assert 'Replace each colour' in different.message


def test_palette_labels_are_fine(split: Any) -> None:
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    ids[:, :3] = 2
    write_palette_png(split.labels / 'one.png', ids, [(200, 100, 50)] * 3)
    assert check_split(split.index()) == []


def test_label_not_whole(split: Any) -> None:
    for name in ('one', 'two', 'three'):
        (split.labels / f'{name}.png').unlink()
        split.save_label(f'{name}.tif', np.ones((HEIGHT, WIDTH), dtype=np.float32))
    assert len(only(check_split(split.index(label_suffix='.tif')), 'label_not_whole')) == 3


def test_label_lossy(split: Any) -> None:
    path = split.labels / 'one.png'
    Image.fromarray(np.ones((HEIGHT, WIDTH), dtype=np.uint8)).save(path, format='JPEG')
    [problem] = only(check_split(split.index()), 'label_lossy')
    assert problem.file == path


def test_label_too_wide_says_what_an_8_bit_reader_makes_of_it(split: Any) -> None:
    ids = np.ones((HEIGHT, WIDTH), dtype=np.uint16)
    ids[0, :7] = 300
    cv2.imwrite(str(split.labels / 'one.png'), ids)
    [problem] = only(check_split(split.index()), 'label_too_wide')
    assert 'id 300 (7 px)' in problem.message
    assert '300 becomes 44' in problem.message


def test_16_bit_labels_with_small_ids_are_fine(split: Any) -> None:
    cv2.imwrite(str(split.labels / 'one.png'), np.ones((HEIGHT, WIDTH), dtype=np.uint16))
    assert check_split(split.index()) == []


def test_label_out_of_range_names_ids_and_pixels(split: Any) -> None:
    ids = np.ones((HEIGHT, WIDTH), dtype=np.uint8)
    ids[0, :4], ids[1, :2] = 200, 254
    split.save_label('one.png', ids)
    [problem] = only(check_split(split.index()), 'label_out_of_range')
    assert 'ids 200 (4 px), 254 (2 px) belong to no class' in problem.message
    assert '0..2 and 255' in problem.message
    assert 'reduce_zero_label' not in problem.message


def test_ids_one_too_high_suggest_reduce_zero_label(split: Any) -> None:
    split.save_label('one.png', np.full((HEIGHT, WIDTH), 3, dtype=np.uint8))
    [problem] = only(check_split(split.index()), 'label_out_of_range')
    assert 'id 3 (240 px) belongs to no class' in problem.message
    assert 'set reduce_zero_label=True' in problem.message


def test_the_policy_decides_what_is_in_range(split: Any) -> None:
    policy = LabelPolicy(('a', 'b', 'c'), reduce_zero_label=True)
    split.save_label('one.png', np.full((HEIGHT, WIDTH), 3, dtype=np.uint8))
    assert check_split(SampleIndex(split.images, split.labels, policy)) == []
    split.save_label('one.png', np.repeat([[3, 4]], [5, 15], axis=1).repeat(HEIGHT, axis=0).astype(np.uint8))
    [problem] = only(check_split(SampleIndex(split.images, split.labels, policy)), 'label_out_of_range')
    assert '1..3, 0 (ignored by reduce_zero_label) and 255' in problem.message


def test_only_0_and_255(split: Any) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[:, 9:] = 255
    for name in ('one', 'two', 'three'):
        split.save_label(f'{name}.png', mask)
    index = SampleIndex(split.images, split.labels, LabelPolicy(('background', 'road')))
    found = check_split(index)
    assert [problem.rule for problem in found] == ['only_0_and_255', 'class_absent']
    assert 'black-and-white mask' in found[0].message
    assert 'Save the foreground as 1' in found[0].message


def test_one_label_of_0_and_255_among_others_is_fine(split: Any) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[:, 9:] = 255
    split.save_label('one.png', mask)
    assert check_split(split.index()) == []


def test_size_differs(split: Any) -> None:
    split.save_label('one.png', np.ones((HEIGHT, WIDTH + 1), dtype=np.uint8))
    [problem] = only(check_split(split.index()), 'size_differs')
    assert 'the label is 21x12, the image 20x12' in problem.message
    assert 'EXIF' not in problem.message


def test_size_differs_by_the_exif_rotation(split: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(split.images / 'one.jpg') as image:
        image.load()
        image.save(split.images / 'one.jpg', exif=exif)
    [problem] = only(check_split(split.index()), 'size_differs')
    assert 'the image 12x20 after its EXIF orientation 6' in problem.message
    split.save_label('one.png', np.ones((WIDTH, HEIGHT), dtype=np.uint8))
    assert check_split(split.index()) == []


def test_label_all_ignored_is_a_warning(split: Any) -> None:
    split.save_label('one.png', np.full((HEIGHT, WIDTH), 255, dtype=np.uint8))
    [problem] = only(check_split(split.index()), 'label_all_ignored')
    assert problem.severity == 'warning'


def test_class_absent_is_a_warning_that_names_the_classes(split: Any) -> None:
    index = SampleIndex(split.images, split.labels, LabelPolicy(('a', 'b', 'c', 'tram', 'kite')))
    [problem] = only(check_split(index), 'class_absent')
    assert problem.severity == 'warning'
    assert '2 of 5 classes' in problem.message and 'tram, kite' in problem.message


def test_a_sample_is_noted_and_missing_files_are_found_beyond_it(split: Any) -> None:
    [note] = only(check_split(split.index(), max_files=2), 'not_all_checked')
    assert note.severity == 'note'
    assert 'checked 2 of 3' in note.message
    (split.labels / 'two.png').unlink()
    found = check_split(split.index(), max_files=1)
    assert [problem.rule for problem in found] == ['image_without_label', 'not_all_checked']


def test_check_dataset_covers_both_splits(sample_root: Path) -> None:
    policy = LabelPolicy(('background', 'horizontal stripes'))
    found = check_dataset(sample_root, policy)
    folders = {problem.file.parent.name for problem in found if problem.file}
    assert folders == {'training', 'validation'}
    with pytest.raises(UserError, match=r'label_out_of_range \(\d+ times\)'):
        raise_on_problems(found, str(sample_root))


def test_real_street_scenes_pass(shared_dir: Path) -> None:
    root = shared_dir / 'data/camvid'
    policy = LabelPolicy(tuple(f'class {index}' for index in range(11)))
    assert check_dataset(root, policy, splits=('train', 'val')) == []
