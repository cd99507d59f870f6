from __future__ import annotations

import pytest
from PIL import Image

from internvl_dense.commands import browse_dataset
from internvl_dense.errors import UserError
from tests import tiny_runs


@pytest.fixture
def data(tmp_path):
    return tiny_runs.make_data(tmp_path)


def browse(data, *words: object) -> int:
    return browse_dataset.main([str(word) for word in (tiny_runs.CONFIG, *words, *tiny_runs.options(data))])


def test_sheets_are_written_and_named(tmp_path, data, capsys, monkeypatch):
    monkeypatch.setattr('internvl_dense.data.label_sheets.SAMPLES', 4)
    assert browse(data, '--out', tmp_path / 'out', '--number', 6) == 0
    sheets = sorted((tmp_path / 'out').iterdir())
    assert [path.name for path in sheets] == ['train_augmented_01.png', 'train_augmented_02.png']
    first, second = (Image.open(path) for path in sheets)
    assert first.height > second.height and first.width == second.width
    out = capsys.readouterr().out
    assert f'{sheets[0]}: sample_00001.jpg, sample_00002.jpg, sample_00003.jpg, sample_00005.jpg' in out


@pytest.mark.parametrize(('words', 'name'), [
    (('--split', 'val'), 'val_augmented_01.png'), (('--split', 'test', '--raw'), 'test_raw_01.png'),
    (('--augmented',), 'train_augmented_01.png'),
])
def test_splits_and_modes_in_the_work_dir(tmp_path, data, monkeypatch, words, name):
    monkeypatch.chdir(tmp_path)
    assert browse(data, *words) == 0
    folder = tmp_path / 'work_dirs' / 'upernet_internvit_debug_demo' / 'browse'
    assert [path.name for path in folder.iterdir()] == [name]


def test_bad_files_are_said_and_make_the_exit_code_1(tmp_path, data, capsys):
    bad = data / 'images' / 'training' / 'sample_00002.jpg'
    bad.write_bytes(b'hello')
    assert browse(data, '--out', tmp_path / 'out') == 1
    assert f'cannot be read: {bad}: failed to load image' in capsys.readouterr().out
    assert (tmp_path / 'out' / 'train_augmented_01.png').is_file()


def test_a_label_with_ids_that_are_no_class_is_named(tmp_path, data):
    path = data / 'annotations' / 'training' / 'sample_00001.png'
    Image.open(path).point(lambda i: 99 if i == 0 else i).save(path)
    with pytest.raises(UserError, match=r'sample_00001.jpg: ids \[99\] have no colour'):
        browse(data, '--out', tmp_path / 'out')


def test_number_is_at_least_one(data):
    with pytest.raises(UserError, match='--number 0: at least 1'):
        browse(data, '--number', 0)
