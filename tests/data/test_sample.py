from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from internvl_dense.data import sample
from internvl_dense.data.checks import check_dataset
from internvl_dense.data.label_files import label_facts, read_label
from internvl_dense.data.sample import MANIFEST, SAMPLE_POLICY, make_sample_dataset
from internvl_dense.errors import UserError

SMALL = {'train': 3, 'val': 2, 'size_px': 56}


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout(sample_root: Path) -> None:
    for split, count in (('training', 60), ('validation', 20)):
        images = sorted((sample_root / 'images' / split).iterdir())
        labels = sorted((sample_root / 'annotations' / split).iterdir())
        assert len(images) == len(labels) == count
        assert (images[0].name, labels[0].name) == ('sample_00001.jpg', 'sample_00001.png')
    assert (sample_root / 'classes.txt').read_text().splitlines() == list(SAMPLE_POLICY.classes)
    assert label_facts(sample_root / 'annotations/training/sample_00001.png').mode == 'P'
    assert not [path for path in sample_root.parent.iterdir() if path != sample_root]


def test_the_data_set_passes_every_check(sample_root: Path) -> None:
    assert check_dataset(sample_root, SAMPLE_POLICY) == []


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    first, second = (make_sample_dataset(tmp_path / name, **SMALL) for name in 'ab')
    assert digests(first) == digests(second)
    other = make_sample_dataset(tmp_path / 'c', **SMALL, seed=1)
    assert (
        digests(other)['annotations/training/sample_00001.png']
        != digests(first)['annotations/training/sample_00001.png']
    )


def test_a_picture_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = digests(make_sample_dataset(tmp_path / 'few', **SMALL))
    more = digests(make_sample_dataset(tmp_path / 'more', train=4, val=2, size_px=56))
    for name in ('images/training/sample_00003.jpg', 'annotations/validation/sample_00002.png'):
        assert few[name] == more[name]


def test_splits_share_no_picture(sample_root: Path) -> None:
    found = digests(sample_root)
    images = [digest for name, digest in found.items() if name.endswith('.jpg')]
    assert len(set(images)) == len(images)


def test_a_complete_folder_is_left_alone(sample_root: Path) -> None:
    before = (sample_root / MANIFEST).stat().st_mtime_ns
    (sample_root / 'notes.txt').write_text('mine')
    start = time.perf_counter()
    assert make_sample_dataset(sample_root, train=60, val=20) == sample_root
    assert time.perf_counter() - start < 0.5
    assert (sample_root / MANIFEST).stat().st_mtime_ns == before
    (sample_root / 'notes.txt').unlink()


@pytest.mark.parametrize('damage', ['delete', 'empty', 'manifest', 'version'])
def test_an_incomplete_or_older_folder_is_drawn_anew(tmp_path: Path, damage: str) -> None:
    root = make_sample_dataset(tmp_path / 'data', **SMALL)
    good = digests(root)
    image = root / 'images/training/sample_00002.jpg'
    if damage == 'delete':
        image.unlink()
    elif damage == 'empty':
        image.write_bytes(b'')
    elif damage == 'manifest':
        (root / MANIFEST).unlink()
    else:
        old = json.loads((root / MANIFEST).read_text())
        (root / MANIFEST).write_text(json.dumps({**old, 'version': 0}))
    assert digests(make_sample_dataset(root, **SMALL)) == good
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_fewer_pictures_leave_no_old_ones_behind(tmp_path: Path) -> None:
    root = make_sample_dataset(tmp_path / 'data', **SMALL)
    make_sample_dataset(root, train=1, val=1, size_px=56)
    assert [path.name for path in (root / 'images/training').iterdir()] == ['sample_00001.jpg']


def test_a_stopped_run_leaves_the_old_data_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_sample_dataset(tmp_path / 'data', **SMALL)
    good = digests(root)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, 'write_palette_png', stop)
    with pytest.raises(KeyboardInterrupt):
        make_sample_dataset(root, **SMALL, seed=5)
    assert digests(root) == good
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_processes_that_draw_at_once_agree(tmp_path: Path) -> None:
    with multiprocessing.get_context('spawn').Pool(3) as pool:
        pool.starmap(make_sample_dataset, [(tmp_path / 'data', 3, 2, 56)] * 3)
    assert digests(tmp_path / 'data') == digests(make_sample_dataset(tmp_path / 'alone', **SMALL))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['alone', 'data']


def test_a_process_that_comes_second_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process finishes between the last look and the renaming."""
    root = tmp_path / 'data'
    ready = make_sample_dataset(tmp_path / 'other', **SMALL)

    def too_late(place: Path, partial: Path) -> None:
        ready.rename(place)
        partial.rename(place)

    monkeypatch.setattr(sample, '_replace', too_late)
    assert make_sample_dataset(root, **SMALL) == root
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_folders_with_other_files_are_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos/holiday.jpg').write_bytes(b'precious')
    with pytest.raises(UserError, match=r'no sample data: holiday\.jpg'):
        make_sample_dataset(tmp_path / 'photos', **SMALL)
    assert (tmp_path / 'photos/holiday.jpg').read_bytes() == b'precious'
    with pytest.raises(UserError, match='is a file'):
        make_sample_dataset(tmp_path / 'photos/holiday.jpg', **SMALL)


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'data').symlink_to(tmp_path / 'disk')
    make_sample_dataset(tmp_path / 'data', **SMALL)
    assert (tmp_path / 'data').is_symlink()
    assert (tmp_path / 'disk' / MANIFEST).is_file()


def test_arguments_out_of_range_are_listed_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        make_sample_dataset(tmp_path / 'data', train=0, val=0, size_px=20, seed=-1)
    assert '4 problems' in str(caught.value)
    assert not os.listdir(tmp_path)


def test_coco_json_describes_the_same_pictures(sample_root: Path) -> None:
    content = json.loads((sample_root / 'annotations/instances_validation.json').read_text())
    assert [category['name'] for category in content['categories']] == list(SAMPLE_POLICY.classes[1:])
    assert [image['id'] for image in content['images']] == list(range(1, 21))
    ids = [annotation['id'] for annotation in content['annotations']]
    assert ids == list(range(1, len(ids) + 1))
    for annotation in content['annotations']:
        name = content['images'][annotation['image_id'] - 1]['file_name'].replace('.jpg', '.png')
        label = read_label(sample_root / 'annotations/validation' / name)
        left, top, width, height = annotation['bbox']
        inside = label[top : top + height, left : left + width]
        own = int((inside == annotation['category_id']).sum())
        assert own <= annotation['area'] or len(np.unique(inside)) > 1
        assert own > 0.4 * annotation['area']
        assert annotation['segmentation'] and annotation['iscrowd'] == 0
