from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_dense.data.prepare.run import LAYOUTS, layout_named
from internvl_dense.errors import UserError
from tests.data.prepare import miniatures
from tests.data.prepare.conftest import Prepare
from tests.data.prepare.miniatures import stamps, tree, without_record

FOLDERS = {'ade20k': 'ADEChallengeData2016', 'coco_stuff164k': 'coco_stuff164k', 'coco': 'coco'}
# Files of the miniatures: 5 images with a label or two annotation files, and two text files of ADE20K.
NUMBERS = {'ade20k': 12, 'coco_stuff164k': 10, 'coco': 7}


def source_files(data_set: str) -> dict[str, bytes]:
    if data_set == 'ade20k':
        return miniatures.ade20k()
    images = {**miniatures.coco_images('train'), **miniatures.coco_images('val')}
    return {**images, **(miniatures.coco_annotations() if data_set == 'coco' else miniatures.stuff_maps())}


def expected_copies(data_set: str) -> dict[str, bytes]:
    """Path below the data set folder -> bytes, for all that is copied."""
    files = source_files(data_set)
    if data_set == 'ade20k':
        return {name.removeprefix('ADEChallengeData2016/'): data for name, data in files.items()}
    if data_set == 'coco':
        return {name: data for name, data in files.items() if 'captions' not in name}
    return {f'images/{name}': data for name, data in files.items() if name.endswith('.jpg')}


def test_tree_holds_what_the_archives_hold(run: Prepare, data_set: str, archives: Path, tmp_path: Path) -> None:
    lines = run(data_set, archives)
    root = tmp_path / 'out' / FOLDERS[data_set]
    copies = expected_copies(data_set)
    for name, data in copies.items():
        assert (root / name).read_bytes() == data
    converted = {name for name in tree(root) if name.endswith('_labelTrainIds.png')}
    assert set(tree(root)) == set(copies) | converted | {'prepared.json'}
    assert len(converted) == (5 if data_set == 'coco_stuff164k' else 0)
    assert LAYOUTS[data_set].licence in lines
    assert 'ready' in lines[-1]


def test_second_run_changes_nothing_and_says_so(run: Prepare, data_set: str, archives: Path, tmp_path: Path) -> None:
    run(data_set, archives)
    before = stamps(tmp_path / 'out')
    (line,) = run(data_set, archives)
    assert 'complete already, nothing to do' in line
    assert stamps(tmp_path / 'out') == before


@pytest.mark.parametrize('form', ['tar', 'tar.gz', 'folder', 'named one by one', 'mixed', 'renamed'])
def test_every_form_of_source_gives_the_same_tree(
    run: Prepare, data_set: str, archives: Path, tmp_path: Path, form: str
) -> None:
    run(data_set, archives)
    files = source_files(data_set)
    place = tmp_path / 'other'
    if form in ('tar', 'tar.gz'):
        sources = [miniatures.write_tar(place / f'all.{form}', files)]
    elif form == 'folder':
        sources = [miniatures.unpack(archives, place)]
    elif form == 'named one by one':
        sources = sorted(archives.iterdir())
    elif form == 'mixed':
        names = sorted(files)
        half = len(names) // 2
        miniatures.write_folder(place / 'a' / 'extracted', {name: files[name] for name in names[:half]})
        miniatures.write_zip(place / 'b.zip', {name: files[name] for name in names[half:]})
        sources = [place]
    else:
        for number, archive in enumerate(sorted(archives.iterdir())):
            place.mkdir(exist_ok=True)
            shutil.copy(archive, place / f'download ({number})')
        sources = [place]
    run(data_set, *sources, out=tmp_path / 'again')
    assert without_record(tree(tmp_path / 'again')) == without_record(tree(tmp_path / 'out'))


def test_extracted_files_are_linked(run: Prepare, data_set: str, archives: Path, tmp_path: Path) -> None:
    place = miniatures.unpack(archives, tmp_path / 'extracted')
    before = stamps(place)
    lines = run(data_set, place)
    inodes = {inode for inode, _ in before.values()}
    root = tmp_path / 'out' / FOLDERS[data_set]
    linked = [path for path in root.rglob('*') if path.is_file() and path.stat().st_ino in inodes]
    assert len(linked) == len(expected_copies(data_set))
    assert f'{len(linked)} linked' in lines[-1]
    assert {path: stamp for path, stamp in stamps(place).items() if Path(path).is_file()} == {
        path: stamp for path, stamp in before.items() if Path(path).is_file()}


@pytest.mark.skipif(not os.access('/dev/shm', os.W_OK), reason='needs a second file system')
def test_files_on_another_disk_are_copied(run: Prepare, archives: Path, data_set: str, tmp_path: Path) -> None:
    place = Path('/dev/shm') / f'prepare_data_{os.getpid()}'
    try:
        miniatures.unpack(archives, place)
        if place.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip('/dev/shm is on the same file system')
        lines = run(data_set, place)
    finally:
        shutil.rmtree(place)
    assert 'linked' not in lines[-1]
    assert f'{len(expected_copies(data_set))} copied' in lines[-1]
    assert (tmp_path / 'out' / FOLDERS[data_set] / 'prepared.json').is_file()


def test_symbolic_links_in_a_folder_become_files(run: Prepare, tmp_path: Path) -> None:
    store = miniatures.write_folder(tmp_path / 'store', miniatures.ade20k())
    place = tmp_path / 'linked'
    place.mkdir()
    (place / 'ADEChallengeData2016').symlink_to(store / 'ADEChallengeData2016')
    run('ade20k', place)
    files = [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]
    assert len(files) == NUMBERS['ade20k'] + 1 and not any(path.is_symlink() for path in files)


def test_extracted_in_place_only_gets_its_record(run: Prepare, tmp_path: Path) -> None:
    miniatures.write_folder(tmp_path / 'out', miniatures.ade20k())
    before = stamps(tmp_path / 'out')
    lines = run('ade20k', tmp_path / 'out')
    after = stamps(tmp_path / 'out')
    new = set(after) - set(before)
    assert new == {str(tmp_path / 'out' / 'ADEChallengeData2016' / 'prepared.json')}
    assert all(after[path] == before[path] for path in before if Path(path).is_file())
    assert '12 kept' in lines[-1]


def test_labels_converted_by_others_are_kept_if_their_ids_are_the_same(
    run: Prepare, tmp_path: Path
) -> None:
    archives = miniatures.write_archives(tmp_path / 'downloads', 'coco_stuff164k')
    run('coco_stuff164k', archives, out=tmp_path / 'ours')
    labels = tmp_path / 'ours' / 'coco_stuff164k' / 'annotations'
    for path in labels.rglob('*.png'):
        place = tmp_path / 'out' / path.relative_to(tmp_path / 'ours')
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(place, compress_level=1)
    before = stamps(tmp_path / 'out')
    assert '5 kept' in run('coco_stuff164k', archives)[-1]
    after = stamps(tmp_path / 'out')
    assert all(after[path] == before[path] for path in before if path.endswith('.png'))


@pytest.mark.parametrize(('name', 'message'), [
    ('images/training/ADE_train_00000001.jpg', r'holds other files, which are left alone.*\n.*ADE_train_00000001.jpg'),
    ('images/training/holiday.jpg', r'is in use.*\n.*training images: 1 files .*holiday\.jpg'),
    ('annotations/validation/ADE_val_00000009.png', r'is in use.*\n.*validation labels: 1 files'),
    ('prepared.json', 'prepared.json: not a record of this command'),
])
def test_strange_files_are_left_alone(run: Prepare, tmp_path: Path, name: str, message: str) -> None:
    archives = miniatures.write_archives(tmp_path / 'downloads', 'ade20k')
    root = miniatures.write_folder(tmp_path / 'out' / 'ADEChallengeData2016', {name: b'mine'})
    with pytest.raises(UserError, match=message):
        run('ade20k', archives)
    assert set(tree(root)) == {name} and (root / name).read_bytes() == b'mine'


def test_missing_file_of_a_finished_tree_is_made_again(run: Prepare, data_set: str, archives: Path, tmp_path: Path
                                                       ) -> None:
    run(data_set, archives)
    before = tree(tmp_path / 'out')
    image = next(path for path in sorted((tmp_path / 'out').rglob('*.jpg')))
    image.unlink()
    lines = run(data_set, archives)
    assert tree(tmp_path / 'out') == before, 'the record says the same as before, so it stays'
    assert f'{NUMBERS[data_set] - 1} kept' in lines[-1]


def test_partial_takes_the_pairs_and_says_so(run: Prepare, tmp_path: Path) -> None:
    files = miniatures.ade20k()
    files = {name: data for name, data in files.items() if name not in (
        'ADEChallengeData2016/images/training/ADE_train_00000001.jpg',
        'ADEChallengeData2016/annotations/training/ADE_train_00000003.png')}
    archive = miniatures.write_zip(tmp_path / 'part.zip', files)
    with pytest.raises(UserError, match='training images: 2 found, 3 published'):
        run('ade20k', archive)
    lines = run('ade20k', archive, partial=True)
    assert 'PARTIAL data set, for trying out only: 1 of 3 train images, 2 of 2 val images' in lines
    root = tmp_path / 'out' / 'ADEChallengeData2016'
    assert [path.name for path in (root / 'images' / 'training').iterdir()] == ['ADE_train_00000002.jpg']
    record = json.loads((root / 'prepared.json').read_text())
    assert record['partial'] is True and 'PARTIAL' in record['notes'][0]
    before = stamps(tmp_path / 'out')
    run('ade20k', archive, partial=True)
    assert {path: stamp for path, stamp in stamps(tmp_path / 'out').items() if Path(path).is_file()} == {
        path: stamp for path, stamp in before.items() if Path(path).is_file()}


def test_partial_grows_into_the_whole(run: Prepare, tmp_path: Path) -> None:
    archives = miniatures.write_archives(tmp_path / 'downloads', 'coco_stuff164k')
    subset = [archives / 'val2017.zip', archives / 'stuffthingmaps_trainval2017.zip']
    lines = run('coco_stuff164k', *subset, partial=True)
    assert 'PARTIAL data set, for trying out only: 0 of 3 train images, 2 of 2 val images' in lines
    run('coco_stuff164k', archives)
    run('coco_stuff164k', archives, out=tmp_path / 'whole')
    assert without_record(tree(tmp_path / 'out')) == without_record(tree(tmp_path / 'whole'))
    assert json.loads((tmp_path / 'out' / 'coco_stuff164k' / 'prepared.json').read_text())['partial'] is False


def test_partial_coco_has_annotations_of_its_images_alone(run: Prepare, tmp_path: Path) -> None:
    files = miniatures.coco_images('val')
    gone, kept = (f'val2017/{name}.jpg' for name in miniatures.coco_names('val'))
    source = tmp_path / 'data'
    miniatures.write_zip(source / 'some.zip', {kept: files[kept]})
    miniatures.write_zip(source / 'annotations_trainval2017.zip', miniatures.coco_annotations())
    for _ in range(2):  # the source folder then holds the result as well
        lines = run('coco', source, partial=True, out=source)
    content = json.loads((source / 'coco' / 'annotations' / 'instances_val2017.json').read_text())
    assert [image['file_name'] for image in content['images']] == [Path(kept).name]
    assert {row['image_id'] for row in content['annotations']} == {content['images'][0]['id']}
    assert len(content['categories']) == 80
    assert any('1 of 2 images left out' in line for line in lines)
    assert sorted(path.name for path in (source / 'coco').rglob('*') if path.is_file()) == [
        Path(kept).name, 'instances_val2017.json', 'prepared.json']
    assert gone not in lines


def test_extracted_files_come_before_archives(run: Prepare, tmp_path: Path) -> None:
    archives = miniatures.write_archives(tmp_path / 'downloads', 'ade20k')
    miniatures.unpack(archives, archives)
    assert '12 linked' in run('ade20k', archives)[-1]


def test_full_disk_is_told_before_the_work(run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives = miniatures.write_archives(tmp_path / 'downloads', 'ade20k')
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match='GB are needed; make room'):
        run('ade20k', archives)
    assert not (tmp_path / 'out').exists()


def test_result_is_counted_again(run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else puts an image there while the run is at work."""
    archives = miniatures.write_archives(tmp_path / 'downloads', 'ade20k')
    stranger = tmp_path / 'out' / 'ADEChallengeData2016' / 'images' / 'training' / 'stranger.jpg'
    layout = LAYOUTS['ade20k']
    first = layout.parts[0]
    part = dataclasses.replace(first, treat=lambda data, task, selection: (
        stranger.write_bytes(b'x'), first.treat(data, task, selection))[1])
    monkeypatch.setitem(LAYOUTS, 'ade20k', dataclasses.replace(layout, parts=(part, *layout.parts[1:])))
    with pytest.raises(UserError, match='training images: 4 files in place, 3 expected'):
        run('ade20k', archives)
    assert stranger.exists() and not (stranger.parents[2] / 'prepared.json').exists()


def test_record(run: Prepare, data_set: str, archives: Path, tmp_path: Path) -> None:
    run(data_set, archives)
    record = json.loads((tmp_path / 'out' / FOLDERS[data_set] / 'prepared.json').read_text())
    assert record['data_set'] == data_set and record['partial'] is False
    assert record['published'] == {'train': 3, 'val': 2}
    assert sum(part['files'] for part in record['files'].values()) == NUMBERS[data_set] == sum(record['made'].values())
    assert record['licence'] == LAYOUTS[data_set].licence and record['converter'].startswith('internvl_dense ')
    assert record['date'].endswith('+00:00')
    assert {(Path(row['path']), row['bytes']) for row in record['sources']} == {
        (path, path.stat().st_size) for path in archives.iterdir()}


def test_classes_of_a_prepared_label(run: Prepare, tmp_path: Path) -> None:
    run('coco_stuff164k', miniatures.write_archives(tmp_path / 'downloads', 'coco_stuff164k'))
    labels = sorted((tmp_path / 'out').rglob('*_labelTrainIds.png'))
    ids = np.concatenate([np.unique(np.asarray(Image.open(path))) for path in labels])
    assert ids.max() == 255 and np.sort(ids)[np.sort(ids) < 255].max() <= 170


def test_published_numbers_are_the_default(run: Prepare, archives: Path, data_set: str, tmp_path: Path) -> None:
    train = {'ade20k': '20,210'}.get(data_set, '118,287')
    val = {'ade20k': '2,000'}.get(data_set, '5,000')
    with pytest.raises(UserError, match=f'2 found, {val} published(.|\n)*3 found, {train} published'):
        run(data_set, archives, counts=None)
    assert not (tmp_path / 'out').exists()


def test_unknown_data_set() -> None:
    with pytest.raises(UserError, match="Did you mean 'ade20k'"):
        layout_named('ade20')
