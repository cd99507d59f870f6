"""The predict command with a tiny model: what it writes, how it continues, what it refuses."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from internvl_dense.commands import predict
from internvl_dense.errors import UserError
from internvl_dense.safe_load import load_file, save_file
from tests import tiny_runs


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_data(tmp_path_factory.mktemp('sample'))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, data) -> pathlib.Path:
    work_dir = tmp_path_factory.mktemp('run')
    changes = {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2}
    assert tiny_runs.train(tiny_runs.CONFIG, work_dir, data=data, **changes) == 0
    return work_dir / 'iter_2.pth'


@pytest.fixture
def images(data, tmp_path) -> pathlib.Path:
    """Five images, two of them in a folder of their own."""
    folder = tmp_path / 'images'
    shutil.copytree(data / 'images' / 'validation', folder)
    (folder / 'more').mkdir()
    for name in ('sample_00001.jpg', 'sample_00002.jpg'):
        (folder / name).rename(folder / 'more' / name)
    shutil.copy(folder / 'sample_00003.jpg', folder / 'more')
    return folder


@pytest.fixture
def command(checkpoint, data, tmp_path):
    """Runs predict on inputs; returns its exit code."""

    def run(*inputs, config=tiny_runs.CONFIG, model=checkpoint, out=tmp_path / 'out', extra=(), **changes):
        options = tiny_runs.options(data, changes)
        words = [config, model, *inputs, *(['--out', out] if out else []), '--device', 'cpu', *extra, *options]
        return predict.main([str(word) for word in words])

    return run


def files(folder: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def test_a_folder_becomes_masks_and_overlays(command, images, tmp_path, capsys):
    assert command(images) == 0
    names = ['more/sample_00001', 'more/sample_00002', 'more/sample_00003', 'sample_00003', 'sample_00004',
             'sample_00005']
    assert files(tmp_path / 'out') == sorted(
        ['predict.json', *(f'masks/{name}.png' for name in names), *(f'overlays/{name}.jpg' for name in names)])
    for name in names:
        mask = Image.open(tmp_path / 'out' / 'masks' / f'{name}.png')
        assert mask.size == (140, 140) and np.asarray(mask).max() < 6
    out = capsys.readouterr().out
    assert '6 images, 0 of them predicted before' in out
    assert '6/6 images' in out and 'so far, done' in out
    assert f'6 images predicted: {tmp_path / "out" / "masks"}' in out


def test_the_record_says_what_made_the_masks(command, images, tmp_path, checkpoint):
    command(images / 'sample_00003.jpg')
    record = json.loads((tmp_path / 'out' / 'predict.json').read_text())
    assert record['checkpoint'] == str(checkpoint)
    assert record['config'].endswith('upernet_internvit_debug_demo.py')
    settings = record['settings']
    assert settings['images_below'] == str(images)
    assert settings['label_policy']['classes'][1] == 'horizontal stripes'
    assert settings['model']['backbone']['variant'] == 'internvit_debug'


def test_a_stopped_run_continues(command, images, tmp_path, capsys, monkeypatch):
    from internvl_dense.data.prediction_files import PredictionFolder

    save, saved = PredictionFolder.save, []

    def stop_at_the_third(self, name, image, ids):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(name)
        save(self, name, image, ids)

    monkeypatch.setattr(PredictionFolder, 'save', stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        command(images)
    monkeypatch.undo()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out' / 'masks').rglob('*.png')}
    assert len(done) == 2
    capsys.readouterr()
    assert command(images) == 0
    out = capsys.readouterr().out
    assert '6 images, 2 of them predicted before' in out and '4/4 images' in out
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(files(tmp_path / 'out' / 'masks')) == 6


def test_nothing_left_to_do_builds_no_model(command, images, capsys, monkeypatch):
    from internvl_dense.openmmlab import predictor

    assert command(images) == 0
    monkeypatch.setattr(predictor, 'load_predictor', None)
    assert command(images) == 0
    assert '6 images, 6 of them predicted before' in capsys.readouterr().out


def test_bad_files_are_listed_and_stop_nothing(command, images, tmp_path, capsys):
    (images / 'a_first.jpg').write_bytes(b'')
    (images / 'more' / 'zz_last.png').write_text('hello')
    assert command(images) == 1
    assert len(files(tmp_path / 'out' / 'masks')) == 6
    listed = (tmp_path / 'out' / 'bad_files.txt').read_text().splitlines()
    assert [line.split('\t')[0] for line in listed] == [
        str(images / 'a_first.jpg'), str(images / 'more' / 'zz_last.png')]
    out = capsys.readouterr().out
    assert '6 images predicted' in out and '2 images could not be predicted' in out
    assert 'a_first.jpg: cannot be read as an image (the file is empty)' in out
    assert '8/8 images' in out
    shutil.copy(images / 'sample_00003.jpg', images / 'a_first.jpg')
    (images / 'more' / 'zz_last.png').unlink()
    assert command(images) == 0
    assert not (tmp_path / 'out' / 'bad_files.txt').exists()


def test_results_of_another_checkpoint_are_refused_or_replaced(command, images, tmp_path, checkpoint):
    command(images)
    content = load_file(checkpoint)
    state = {key: value + 0.01 if 'conv_seg' in key else value for key, value in content['state_dict'].items()}
    save_file({'state_dict': state, 'meta': content['meta']}, tmp_path / 'other.pth')
    before = files(tmp_path / 'out')
    with pytest.raises(UserError, match=r'(?s)--overwrite: 1 problem.*checkpoint_sha256: [0-9a-f]{64} there'):
        command(images, model=tmp_path / 'other.pth')
    assert files(tmp_path / 'out') == before
    assert command(images / 'sample_00003.jpg', model=tmp_path / 'other.pth', extra=['--overwrite']) == 0
    assert files(tmp_path / 'out') == ['masks/sample_00003.png', 'overlays/sample_00003.jpg', 'predict.json']


def test_images_of_another_folder_and_another_opacity_are_refused(command, images):
    command(images / 'sample_00003.jpg')
    with pytest.raises(UserError, match='images_below'):
        command(images / 'more' / 'sample_00003.jpg')
    with pytest.raises(UserError, match='opacity: 0.5 there, 0.7 now'):
        command(images / 'sample_00003.jpg', extra=['--opacity', 0.7])


def test_results_inside_the_input_folder_are_no_input(command, images, capsys):
    assert command(images, out=images) == 0
    assert command(images, out=images) == 0
    assert '6 images, 6 of them predicted before' in capsys.readouterr().out


def test_without_out_results_go_to_the_work_dir(command, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(images / 'sample_00003.jpg', out=None) == 0
    folder = tmp_path / 'work_dirs' / 'upernet_internvit_debug_demo' / 'predictions'
    assert files(folder) == ['masks/sample_00003.png', 'overlays/sample_00003.jpg', 'predict.json']


def test_two_images_of_one_stem(command, images, tmp_path):
    Image.open(images / 'sample_00003.jpg').save(images / 'sample_00003.png')
    assert command(images / 'sample_00003.*') == 0
    assert files(tmp_path / 'out' / 'masks') == ['sample_00003.jpg.png', 'sample_00003.png.png']


def test_mistakes_are_found_before_anything_is_written(command, images, tmp_path, checkpoint):
    with pytest.raises(UserError, match=r'\*\.webp: nothing matches this pattern in'):
        command(images / '*.webp')
    with pytest.raises(UserError, match='absent.pth does not exist'):
        command(images, model=tmp_path / 'absent.pth')
    with pytest.raises(UserError, match='num_classes=4'):
        command(images, **{'model.decode_head.num_classes': 4})
    with pytest.raises(UserError, match='Did you mean'):
        command(images, config='demo/upernet_internvit_debug_dem')
    with pytest.raises(UserError, match='cuda:99'):
        command(images, extra=['--device', 'cuda:99'])
    assert not (tmp_path / 'out').exists()
    with pytest.raises(UserError, match='decode_head'):
        command(images, **{'model.decode_head.channels': 4})
    assert command(images) == 0  # the failed attempt left nothing that binds


@pytest.mark.parametrize('opacity', ['1.5', 'half'])
def test_opacity_is_a_share(opacity, capsys):
    with pytest.raises(SystemExit):
        predict.build_parser().parse_args(['c', 'p', 'i', '--out', 'o', '--opacity', opacity])
    assert f"'{opacity}': a number between 0" in capsys.readouterr().err


def test_a_killed_process_leaves_only_whole_files(checkpoint, data, tmp_path):
    images = tmp_path / 'many'
    images.mkdir()
    source = next((data / 'images' / 'training').glob('*.jpg'))
    for number in range(400):
        shutil.copy(source, images / f'{number:03d}.jpg')
    words = [tiny_runs.ROOT / 'tools' / 'predict.py', tiny_runs.CONFIG, checkpoint, images, '--out', tmp_path / 'out',
             '--device', 'cpu', *tiny_runs.options(data)]
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL,
                               env={'PYTHONPATH': str(tiny_runs.ROOT), 'OMP_NUM_THREADS': '1'})
    masks = tmp_path / 'out' / 'masks'
    deadline = time.monotonic() + 60
    while not (masks.is_dir() and len(list(masks.glob('*.png'))) >= 5):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    results = [*masks.glob('*.png'), *(tmp_path / 'out' / 'overlays').glob('*.jpg')]
    assert len(list(masks.glob('*.png'))) < 400
    for path in results:
        Image.open(path).load()
