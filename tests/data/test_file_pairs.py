from __future__ import annotations

import time
from pathlib import Path

from internvl_dense.data.file_pairs import find_files, find_pairs, nearest_names, walk_files


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'x')


def test_pairs_by_name_in_nested_folders_with_long_suffixes(tmp_path: Path) -> None:
    images, labels = tmp_path / 'leftImg8bit', tmp_path / 'gtFine'
    touch(images / 'bonn/b_1_leftImg8bit.png', images / 'aachen/a_1_leftImg8bit.png')
    touch(labels / 'aachen/a_1_gtFine_labelTrainIds.png', labels / 'bonn/b_1_gtFine_labelTrainIds.png')
    touch(labels / 'bonn/b_1_gtFine_color.png')
    found = find_pairs(images, labels, '_leftImg8bit.png', '_gtFine_labelTrainIds.png')
    assert [pair.name for pair in found.pairs] == ['aachen/a_1', 'bonn/b_1']
    assert found.pairs[0].label == labels / 'aachen/a_1_gtFine_labelTrainIds.png'
    assert not found.images_without_label and not found.labels_without_image


def test_leftovers_on_both_sides_and_doubles(tmp_path: Path) -> None:
    images, labels = tmp_path / 'i', tmp_path / 'l'
    touch(images / 'a.jpg', images / 'b.jpeg', images / 'b.jpg', images / 'c.jpg')
    touch(labels / 'a.png', labels / 'b.png', labels / 'd.png')
    found = find_pairs(images, labels, ('.jpg', '.jpeg'))
    assert [pair.name for pair in found.pairs] == ['a', 'b']
    assert found.pairs[1].image.name == 'b.jpg'
    assert found.twice == {'b': (images / 'b.jpg', images / 'b.jpeg')}
    assert list(found.images_without_label) == ['c']
    assert list(found.labels_without_image) == ['d']


def test_a_list_of_names_limits_the_pairs(tmp_path: Path) -> None:
    touch(*(tmp_path / f'i/{name}.jpg' for name in 'abc'), *(tmp_path / f'l/{name}.png' for name in 'abc'))
    found = find_pairs(tmp_path / 'i', tmp_path / 'l', names=['c', 'a', 'z'])
    assert [pair.name for pair in found.pairs] == ['a', 'c']
    assert found.not_found == ('z',)
    assert not found.labels_without_image


def test_missing_folders_hold_nothing(tmp_path: Path) -> None:
    assert find_files(tmp_path / 'nowhere', '.jpg') == {}


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / 'real/a.jpg')
    (tmp_path / 'root').mkdir()
    (tmp_path / 'root/data').symlink_to(tmp_path / 'real')
    (tmp_path / 'real/up').symlink_to(tmp_path / 'root')
    assert [path.name for path in walk_files(tmp_path / 'root')] == ['a.jpg']
    assert list(find_files(tmp_path / 'root', '.jpg')) == ['data/a']


def test_nearest_names_prefers_longer_names_and_is_quick_on_many() -> None:
    options = sorted([f'img_{index:06d}.png' for index in range(20000)] + ['img_000007_labelTrainIds.png'])
    start = time.perf_counter()
    assert 'img_000007_labelTrainIds.png' in nearest_names('img_000007', options)
    assert nearest_names('img_00007', ['img_000071.png'])[0] == 'img_000071.png'
    assert nearest_names('zebra', ['img_1.png']) == []
    assert time.perf_counter() - start < 1
