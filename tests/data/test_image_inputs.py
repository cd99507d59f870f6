from __future__ import annotations

import os
from pathlib import Path

import pytest

from internvl_dense.data.image_inputs import find_images
from internvl_dense.errors import UserError


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'x')


def names(*inputs: object, **options: object) -> list[str]:
    return list(find_images([str(item) for item in inputs], **options).images)


def test_a_folder_gives_paths_below_it(tmp_path: Path):
    make(tmp_path, 'a/1.jpg', 'a/b/1.JPG', 'a/b/2.tiff', 'a/notes.txt', 'a/.2.jpg', 'a/b/v1.2.png')
    found = find_images([str(tmp_path / 'a')])
    assert found.root == tmp_path / 'a'
    assert found.images == {
        '1': tmp_path / 'a/1.jpg', 'b/1': tmp_path / 'a/b/1.JPG', 'b/2': tmp_path / 'a/b/2.tiff',
        'b/v1.2': tmp_path / 'a/b/v1.2.png',
    }


def test_one_image_and_one_without_a_known_ending(tmp_path: Path):
    make(tmp_path, 'a/1.jpg', 'a/scan.dat')
    assert names(tmp_path / 'a/1.jpg') == ['1']
    assert names(tmp_path / 'a/scan.dat') == ['scan']


def test_images_of_one_stem_in_several_inputs_keep_their_folders(tmp_path: Path):
    make(tmp_path, 'a/x/1.jpg', 'b/1.jpg')
    assert names(tmp_path / 'a/x/1.jpg', tmp_path / 'b/1.jpg') == ['a/x/1', 'b/1']
    assert names(tmp_path / 'a', tmp_path / 'b') == ['a/x/1', 'b/1']


def test_patterns_are_named_like_what_a_shell_would_make_of_them(tmp_path: Path):
    make(tmp_path, 'a/1.jpg', 'b/1.jpg', 'b/2.png', 'b/c/3.jpg')
    assert names(tmp_path / '*' / '1.jpg') == ['a/1', 'b/1']
    assert names(tmp_path / 'b/*.png') == ['2']
    assert names(tmp_path / '[ab]') == ['a/1', 'b/1', 'b/2', 'b/c/3']
    assert names(tmp_path / '**' / '*.jpg') == ['a/1', 'b/1', 'b/c/3']


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path):
    make(tmp_path, 'a[1].jpg', 'a1.jpg')
    assert names(tmp_path / 'a[1].jpg') == ['a[1]']


def test_relative_inputs_and_each_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make(tmp_path, 'a/1.jpg', 'a/2.jpg')
    monkeypatch.chdir(tmp_path)
    found = find_images(['a', 'a/1.jpg', str(tmp_path / 'a/*.jpg')])
    assert found.images == {'1': tmp_path / 'a/1.jpg', '2': tmp_path / 'a/2.jpg'}


def test_images_that_share_folder_and_stem_keep_their_suffix(tmp_path: Path):
    make(tmp_path, '1.jpg', '1.png', '2.jpg', 'b/1.jpg')
    assert names(tmp_path) == ['1.jpg', '1.png', '2', 'b/1']


def test_names_that_are_still_the_same_are_refused(tmp_path: Path):
    make(tmp_path, '1.jpg', '1.png', '1.jpg.png')
    with pytest.raises(UserError, match=r"(?s)1 problem.*are both '1.jpg'"):
        names(tmp_path)


def test_folders_of_earlier_results_are_no_input(tmp_path: Path):
    make(tmp_path, '1.jpg', 'masks/1.png', 'masks/b/1.png', 'other/masks/1.png')
    assert names(tmp_path, skipped=[tmp_path / 'masks']) == ['1', 'other/masks/1']


def test_links_in_a_circle(tmp_path: Path):
    make(tmp_path, 'a/1.jpg')
    os.symlink(tmp_path / 'a', tmp_path / 'a/again')
    assert names(tmp_path / 'a') == ['1']


def test_inputs_without_images_are_listed_at_once(tmp_path: Path):
    make(tmp_path, 'a/1.jpg', 'empty/notes.txt')
    with pytest.raises(UserError) as caught:
        names(tmp_path / 'a', tmp_path / 'absent.jpg', tmp_path / 'empty', tmp_path / 'a' / '*.png')
    message = str(caught.value)
    assert '3 problems' in message
    assert f'{tmp_path / "absent.jpg"}: no such file or folder' in message
    assert f'{tmp_path / "empty"}: no file below it ends in .bmp, .jpeg' in message
    assert f'{tmp_path / "a" / "*.png"}: nothing matches this pattern in {tmp_path / "a"}' in message
