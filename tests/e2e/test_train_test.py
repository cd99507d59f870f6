"""Training and testing as a user does it: what is written, what is logged, and that both agree."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from internvl_dense.safe_load import load_file
from tests import tiny_runs

METRICS = ['mIoU', 'mAcc', 'aAcc', 'mIoU_all_classes']


@pytest.fixture(scope='module')
def tested(first, data, tmp_path_factory):
    """tools/test.py on the last checkpoint, with predictions and pictures."""
    folder = tmp_path_factory.mktemp('tested')
    process = tiny_runs.tool(
        'test', tiny_runs.CONFIG, first.checkpoint, '--work-dir', folder / 'run', '--out', folder / 'masks',
        '--show-dir', folder / 'pictures', *tiny_runs.options(data), cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder


def validated(run, iteration):
    """The metrics in percent that were logged after an iteration."""
    return next(row for row in tiny_runs.scalars(run.work_dir) if 'mIoU' in row and row['step'] == iteration)


def test_test_repeats_the_last_validation(first, tested):
    metrics = json.loads((tested / 'run' / 'metrics.json').read_text())
    assert sorted(metrics) == sorted([*METRICS, 'per_class', 'run'])
    assert metrics['run'] == {'checkpoint': str(first.checkpoint), 'numerics': 'fast',
                              'trained_from': {'path': 'random', 'sha256': None}}
    logged = validated(first, 4)
    ious = [row['IoU'] for row in metrics['per_class'].values() if row['IoU'] is not None]
    assert metrics['mIoU'] == pytest.approx(sum(ious) / len(ious), abs=1e-12)  # not rounded
    for name in METRICS:
        assert 0 <= metrics[name] <= 1
        assert 100 * metrics[name] == pytest.approx(logged[name], abs=5e-5)  # 4 decimals
    assert validated(first, 2) != logged  # the model changed in between, so the comparison says something
    line = next(line for line in first.process.stdout.splitlines() if 'Iter(val) [5/5]    mIoU:' in line)
    assert f'mIoU: {logged["mIoU"]:.4f}' in first.process.stdout, line


def test_predictions_are_index_pictures(tested, data):
    labels = sorted((data / 'annotations' / 'validation').glob('*.png'))
    masks = sorted((tested / 'masks').glob('*.png'))
    assert [path.name for path in masks] == [path.name for path in labels]
    metrics = json.loads((tested / 'run' / 'metrics.json').read_text())
    right = total = 0
    for mask, label in zip(masks, labels, strict=True):
        predicted, truth = np.asarray(Image.open(mask)), np.asarray(Image.open(label))
        right += int(((predicted == truth) & (truth != 255)).sum())
        total += int((truth != 255).sum())
    assert right / total == pytest.approx(metrics['aAcc'], abs=1e-12)


def test_pictures_are_drawn(tested):
    pictures = list((tested / 'pictures').rglob('*.png'))
    assert len(pictures) == 5
    assert all(np.asarray(Image.open(path)).std() > 1 for path in pictures)


def test_checkpoints(first):
    names = sorted(path.name for path in first.work_dir.glob('*.pth'))
    best = max((2, 4), key=lambda iteration: validated(first, iteration)['mIoU'])
    assert names == [f'best_mIoU_iter_{best}.pth', 'iter_2.pth', 'iter_4.pth']
    assert (first.work_dir / 'last_checkpoint').read_text() == str(first.checkpoint)
    for name in names:
        meta = load_file(first.work_dir / name)['meta']
        assert meta['iter'] == int(re.findall(r'\d+', name)[-1])
        assert meta['internvl_dense']['format'] == 2
        assert meta['internvl_dense']['variant'] == 'internvit_debug'
        assert meta['internvl_dense']['classes'][1] == 'horizontal stripes'
        assert meta['internvl_dense']['weights'] == {'path': 'random', 'sha256': None}
        assert meta['internvl_dense']['numerics'] == 'fast'
        torch.load(first.work_dir / name, weights_only=True)  # torch itself accepts it


def test_log_says_what_runs(first):
    text = first.process.stdout
    parameters = sum(value.numel() for key, value in load_file(first.checkpoint)['state_dict'].items()
                     if not key.rsplit('.', 1)[-1].startswith(('running_', 'num_batches')))
    assert f'parameters: {parameters:,} trainable of {parameters:,}' in text
    assert 'backbone: internvit_debug, trained, maps after blocks (0, 1, 2, 3)' in text
    assert '2 images in an optimizer step' in text and '4 iterations of 2 = 1.0 epochs of 4 iterations' in text
    assert 'weights: RANDOM; numerics: fast' in text.splitlines()[0]
    log = next(first.work_dir.glob('*/*.log')).read_text()
    assert 'weights: RANDOM; numerics: fast' in log.splitlines()[0]
    rows = [row for row in tiny_runs.scalars(first.work_dir) if 'loss' in row]
    assert [row['step'] for row in rows] == [1, 2, 3, 4]
    assert all(row['img_per_s'] > 0 and np.isfinite(row['loss']) for row in rows)
    assert all(row.get('host_mb', row.get('memory')) > 50 for row in rows)
    assert all(name in text for name in ('img_per_s:', 'loss:', 'lr:', 'grad_norm:'))
    assert 'Failed to search registry' not in text


def test_tensorboard_has_the_curves(first):
    events = EventAccumulator(str(next(first.work_dir.glob('*/vis_data'))))
    events.Reload()
    assert [event.step for event in events.Scalars('loss')] == [1, 2, 3, 4]
    assert [event.value for event in events.Scalars('mIoU')] == pytest.approx(
        [validated(first, iteration)['mIoU'] for iteration in (2, 4)])


def test_seed_decides_the_losses(first, data, tmp_path):
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'same', '--seed', 7, data=data) == 0
    assert tiny_runs.losses(tmp_path / 'same') == tiny_runs.losses(first.work_dir)
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'other', '--seed', 8, data=data) == 0
    assert tiny_runs.losses(tmp_path / 'other') != tiny_runs.losses(first.work_dir)


def test_dry_run_writes_nothing(data, tmp_path, capsys):
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'run', '--dry-run', data=data) == 0
    assert 'training images: 8' in capsys.readouterr().out
    assert not (tmp_path / 'run').exists()
