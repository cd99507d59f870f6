"""tools/reproduce.py on a small segmentor in the published layout and 20 images laid out as ADE20K."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmseg.datasets import ADE20KDataset
from PIL import Image

from internvl_dense.backbones.fingerprint import file_sha256
from internvl_dense.backbones.locate import ENVIRONMENT
from internvl_dense.commands import reproduce as command
from internvl_dense.errors import run
from internvl_dense.zoo import ZOO, ReleasedModel
from tests import tiny_runs
from tests.published_layouts import SEGMENTOR_LAYOUTS

IMAGES = 20
CELL = """# A small segmentor of the published kind.
_base_ = [{base!r}]
published = dict(mIoU={miou}, images={images}, source='its own test')
model = dict(backbone=dict(variant='internvit_debug', depth=4, embed_dim=16, num_heads=2, dtype='fp32'),
             decode_head=dict(channels=8), auxiliary_head=dict(channels=8))
visualizer = dict(name={name!r})
"""
BASE = str(tiny_runs.ROOT / 'configs' / 'ade20k' / 'head_tuning_internvit_6b_224px_ade20k.py')


def write_cell(path, miou, images=IMAGES):
    path.write_text(CELL.format(base=BASE, miou=miou, images=images, name=path.stem))
    return path


def write_images(root):
    """Half of a picture keeps the predicted class as its label, the other half gets the next one."""
    generator = np.random.default_rng(0)
    for kind in ('images', 'annotations'):
        (root / kind / 'validation').mkdir(parents=True)
    for number in range(IMAGES):
        pixels = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
        name = f'ADE_val_{number + 1:08d}'
        Image.fromarray(pixels).save(root / 'images' / 'validation' / f'{name}.jpg', quality=95)
        Image.fromarray(np.ones(pixels.shape[:2], np.uint8)).save(root / 'annotations' / 'validation' / f'{name}.png')


def call(*words):
    return run(lambda: command.main([str(word) for word in words]))


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    """Checkpoint, data, and the figure that tools/test.py gives."""
    folder = tmp_path_factory.mktemp('published')
    root = folder / 'ADEChallengeData2016'
    write_images(root)
    config = write_cell(folder / 'measured.py', 0.0)
    torch.manual_seed(0)
    loaded = tiny_runs.load_config(SimpleNamespace(config=str(config), weights='random'))
    model = tiny_runs.build_model(loaded)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)  # so that several classes are predicted
    checkpoint = SEGMENTOR_LAYOUTS['mmcv'](folder / 'published.pth', model.state_dict(),
                                           CLASSES=ADE20KDataset.METAINFO['classes'])
    words = ['test', config, checkpoint, '--data-root', root, '--work-dir', folder / 'run', '--out', folder / 'masks',
             '--cfg-options', 'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
    assert tiny_runs.tool(*words, cwd=folder).returncode == 0
    for path in (folder / 'masks').glob('*.png'):
        mask = np.asarray(Image.open(path)).copy()
        mask[:, : mask.shape[1] // 2] = mask[:, : mask.shape[1] // 2] % 150 + 1
        Image.fromarray(mask).save(root / 'annotations' / 'validation' / path.name)
    assert tiny_runs.tool(*words, cwd=folder).returncode == 0
    figure = 100 * json.loads((folder / 'run' / 'metrics.json').read_text())['mIoU']
    assert 5 < figure < 95
    return SimpleNamespace(root=root, checkpoint=checkpoint, figure=figure)


def arguments(published, work_dir, *more):
    return ['--weights', published.checkpoint, '--data-root', published.root, '--work-dir', work_dir, *more,
            '--cfg-options', 'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']


def test_the_tool_prints_published_ours_and_difference_and_writes_a_row(published, tmp_path):
    config = write_cell(tmp_path / 'tiny_cell.py', round(published.figure, 1))
    process = tiny_runs.tool('reproduce', config, *arguments(published, tmp_path / 'run'), cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    row = json.loads((tmp_path / 'run' / 'reproduced.json').read_text())
    assert row['ours'] == pytest.approx(published.figure, abs=1e-9)
    assert row['difference'] == pytest.approx(row['ours'] - row['published'], abs=1e-9)
    assert (row['cell'], row['passed'], row['images'], row['numerics']) == ('tiny_cell', True, IMAGES, 'published')
    assert row['sha256'] == file_sha256(published.checkpoint)
    assert {'seconds', 'device', 'date', 'versions', 'source', 'checkpoint'} <= row.keys()
    line = f'published {row["published"]:.2f}, ours {row["ours"]:.2f}, difference {row["difference"]:+.2f} (reproduced'
    assert line in process.stdout
    assert 'weights: checkpoint' in process.stdout and 'numerics: published' in process.stdout
    assert 'every one fits (backbone' in process.stdout and 'renamed from an older layout' in process.stdout
    assert 'unknown until first seen' in process.stdout


def test_two_processes_reproduce_it_too_and_one_writes(published, tmp_path):
    config = write_cell(tmp_path / 'tiny_pair.py', round(published.figure, 1))
    words = [config, *arguments(published, tmp_path / 'run', '--launcher', 'pytorch')]
    process = tiny_runs.tool('reproduce', *words, launcher=tiny_runs.torchrun(2), cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    row = json.loads((tmp_path / 'run' / 'reproduced.json').read_text())
    assert row['ours'] == pytest.approx(published.figure, abs=1e-9) and len(row['sha256']) == 64
    assert process.stdout.count('unknown until first seen') == process.stdout.count('(reproduced') == 1


@pytest.mark.parametrize('planted', [0.5, -0.5])
def test_a_planted_difference_fails(published, tmp_path, capsys, planted):
    config = write_cell(tmp_path / f'planted_{planted < 0}.py', round(published.figure + planted, 1))
    assert call(config, *arguments(published, tmp_path / 'run')) == 1
    assert 'NOT reproduced' in capsys.readouterr().out
    assert json.loads((tmp_path / 'run' / 'reproduced.json').read_text())['passed'] is False


@pytest.mark.parametrize(('change', 'words', 'message'), [
    ('images', [], 'holds 20 images; the figure was measured on 2,000'),
    ('stride', ['model.test_cfg.stride=[504,504]'], 'this changes model.test_cfg.stride'),
    ('folder', [], 'no folder'),
])
def test_other_conditions_are_refused_before_the_test(published, tmp_path, capsys, change, words, message):
    config = write_cell(tmp_path / f'refused_{change}.py', 50.0, images=2000 if change == 'images' else IMAGES)
    found = arguments(published, tmp_path / 'run')
    if change == 'folder':
        found[found.index('--data-root') + 1] = tmp_path / 'nowhere'
    assert call(config, *found, *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_a_config_without_a_figure_is_refused(published, tmp_path, capsys):
    cell = 'linear_probing_internvit_6b_448px_v1_5_ade20k'
    assert call(cell, *arguments(published, tmp_path)) == 2
    error = capsys.readouterr().err
    assert 'states no published figure' in error and 'arXiv 2412.05271, Table 15, not transcribed' in error
    assert 'full_tuning_internvit_6b_224px_ade20k' in error


def test_a_published_model_is_looked_for_and_its_checksum_compared(published, tmp_path, capsys, monkeypatch):
    config = write_cell(tmp_path / 'tiny_zoo.py', round(published.figure, 1))
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    found = arguments(published, tmp_path / 'run')[2:]
    row = ReleasedModel('tiny_zoo', str(tmp_path), 'tiny', round(published.figure, 1), sha256='0' * 64)
    monkeypatch.setitem(ZOO._items, 'tiny_zoo', row)
    assert call(config, *found) == 2
    assert 'internvl-dense fetch tiny_zoo' in capsys.readouterr().err
    (tmp_path / 'tiny.pth').write_bytes(published.checkpoint.read_bytes())
    assert call(config, *found) == 2
    assert 'is not the published file' in capsys.readouterr().err
    monkeypatch.setitem(ZOO._items, 'tiny_zoo', ReleasedModel(
        'tiny_zoo', str(tmp_path), 'tiny', row.miou, sha256=file_sha256(published.checkpoint)))
    assert call(config, *found) == 0
    assert 'as published' in capsys.readouterr().out


def test_help_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; from internvl_dense.commands.reproduce import main; main(['-h'])"
    result = subprocess.run([sys.executable, '-c', code], cwd=tiny_runs.ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and 'CELL' in result.stdout
