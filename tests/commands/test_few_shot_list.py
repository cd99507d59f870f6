from __future__ import annotations

import json

import pytest
from mmengine.registry import DATASETS, init_default_scope

from internvl_dense.commands.few_shot_list import main
from internvl_dense.data.few_shot import few_shot_names
from internvl_dense.errors import UserError
from tests import tiny_runs

CONFIG = 'ade20k/few_shot_1of16_internvit_6b_224px_ade20k'
NAMES = [f'ADE_train_{number:08d}' for number in range(1, 41)]


@pytest.fixture
def root(tmp_path):
    """40 training images, and their labels, in the layout of ADE20K; the files are empty."""
    for folder, suffix in (('images', '.jpg'), ('annotations', '.png')):
        place = tmp_path / 'ade' / folder / 'training'
        place.mkdir(parents=True)
        for name in NAMES:
            (place / f'{name}{suffix}').touch()
    return tmp_path / 'ade'


def make(root, *words: object) -> int:
    return main([str(word) for word in (root / 'images' / 'training', *words)])


def listed(path) -> list[str]:
    return path.read_text().splitlines()


def test_the_list_and_its_record(root, capsys):
    path = root / 'few_shot' / 'list.txt'
    assert make(root, 16, '--out', path) == 0
    assert listed(path) == few_shot_names(NAMES, '1/16') and len(listed(path)) == 2
    assert json.loads(path.with_suffix('.json').read_text())['of'] == 40
    assert f'{path}: 2 of 40 images, seed 0' in capsys.readouterr().out


def test_seeds_and_shares(root, tmp_path):
    make(root, 4, '--out', tmp_path / 'a.txt')
    make(root, 2, '--out', tmp_path / 'b.txt')
    make(root, 4, '--out', tmp_path / 'c.txt', '--seed', 1)
    make(root, 1, '--out', tmp_path / 'd.txt')
    a, b, c, d = (listed(tmp_path / f'{name}.txt') for name in 'abcd')
    assert b[:10] == a != c
    assert sorted(d) == NAMES


def test_the_command_makes_the_list_of_the_config_and_the_config_reads_it(tmp_path, repo_root):
    """On files named as those of ADE20K: the list of the repository, and the training set that the config builds."""
    for folder, suffix in (('images', '.jpg'), ('annotations', '.png')):
        (tmp_path / folder / 'training').mkdir(parents=True)
        for number in range(1, 20_211):
            (tmp_path / folder / 'training' / f'ADE_train_{number:08d}{suffix}').touch()
    assert make(tmp_path, 16, '--out', tmp_path / '1of16_seed0.txt') == 0
    shipped = repo_root / 'configs' / 'ade20k' / 'few_shot' / '1of16_seed0.txt'
    assert (tmp_path / '1of16_seed0.txt').read_bytes() == shipped.read_bytes()
    config = tiny_runs.load_config(tiny_runs.Namespace(config=CONFIG, data_root=str(tmp_path)))
    init_default_scope('mmseg')
    dataset = DATASETS.build({**config.train_dataloader.dataset, 'pipeline': []})
    found = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [info['img_path'] for info in found] == [
        str(tmp_path / f'images/training/{name}.jpg') for name in listed(shipped)]
    assert [info['seg_map_path'] for info in found] == [
        str(tmp_path / f'annotations/training/{name}.png') for name in listed(shipped)]


def test_mmseg_reads_exactly_the_listed_images_also_in_folders(tmp_path):
    for name in ('a/1', 'a/2', 'b/1', 'b/2'):
        (tmp_path / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'images' / f'{name}.png').touch()
    main([str(tmp_path / 'images'), '2', '--out', str(tmp_path / 'half.txt'), '--suffix', '.png'])
    init_default_scope('mmseg')
    dataset = DATASETS.build({
        'type': 'BaseSegDataset', 'data_root': str(tmp_path), 'data_prefix': {'img_path': 'images'}, 'pipeline': [],
        'ann_file': 'half.txt', 'img_suffix': '.png', 'metainfo': {'classes': ('x',)}})
    paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    assert paths == [str(tmp_path / 'images' / f'{name}.png') for name in listed(tmp_path / 'half.txt')]
    assert len(paths) == 2


def test_another_list_is_not_replaced_unasked(root, tmp_path):
    path = tmp_path / 'list.txt'
    make(root, 4, '--out', path)
    make(root, 4, '--out', path)
    with pytest.raises(UserError, match='holds other names'):
        make(root, 8, '--out', path)
    assert len(listed(path)) == 10
    make(root, 8, '--out', path, '--force')
    assert len(listed(path)) == 5


@pytest.mark.parametrize(('words', 'message'), [
    ((0, '--out', 'a.txt'), 'DENOMINATOR 0: must be from 1 to 40'),
    ((16, '--out', 'a.txt', '--suffix', '.tif'), 'no file below it ends in .tif'),
    ((41, '--out', 'a.txt'), 'DENOMINATOR 41: must be from 1 to 40'),
    ((16, '--out', 'a.json'), 'end the list in .txt'),
])
def test_mistakes(root, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        make(root, *words)
    assert [path.name for path in tmp_path.iterdir()] == ['ade']
