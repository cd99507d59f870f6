"""The demo as a new user runs it: data, training, test, pictures; then a linear head on its trunk. Minutes: slow."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from internvl_dense.data.colour_baseline import nearest_colour_baseline
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.launch import build_runner

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]
UPERNET = 0.70  # test mIoU that the demo must reach
LINEAR = 0.45  # a linear head on its frozen trunk
UNTRAINED = 0.15  # random weights stay below
COLOUR = 0.20  # so does a classifier by nearest colour
DETECTOR = 'demo/mask_rcnn_internvit_debug_demo'
BOXES, MASKS = 0.55, 0.50  # AP50 that the detector must reach
UNTRAINED_AP50 = 0.02


def run(cwd, *words):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}  # works without being installed
    command = [sys.executable, '-m', 'internvl_dense', *map(str, words)]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """Folder in which the demo has run, and what it printed."""
    folder = tmp_path_factory.mktemp('demo')
    return folder, run(folder, 'demo')


def metrics(work_dir):
    return json.loads((work_dir / 'metrics.json').read_text())


def test_demo_reaches_its_figure_and_draws(demo):
    folder, output = demo
    work_dir = folder / 'work_dirs' / 'demo'
    assert metrics(work_dir)['mIoU'] >= UPERNET
    assert 'horizontal stripes' in output and 'mIoU' in output and 'next' in output
    for name in ('predictions.png', 'curves.png'):
        picture = np.asarray(Image.open(work_dir / name).convert('RGB'))
        assert picture.shape[0] > 200 and picture.std() > 20
    assert len(list((work_dir / 'predictions' / 'masks').glob('*.png'))) == 60
    assert nearest_colour_baseline(folder / 'data' / 'demo') < COLOUR


def test_linear_head_on_the_trained_trunk(demo):
    folder, _ = demo
    checkpoint = (folder / 'work_dirs' / 'demo' / 'last_checkpoint').read_text().strip()
    config = 'demo/linear_probing_internvit_debug_demo'
    run(folder, 'train', config, '--work-dir', 'linear', '--cfg-options', f'model.backbone.weights={checkpoint}')
    last = (folder / 'linear' / 'last_checkpoint').read_text().strip()
    run(folder, 'test', config, last, '--work-dir', 'linear', '--cfg-options', f'model.backbone.weights={checkpoint}')
    assert metrics(folder / 'linear')['mIoU'] >= LINEAR


def test_random_weights_know_nothing(demo, monkeypatch):
    folder, _ = demo
    monkeypatch.chdir(folder)
    config = load_config(Namespace(config='demo/upernet_internvit_debug_demo', work_dir='untrained'))
    assert build_runner(config).test()['mIoU'] < 100 * UNTRAINED


def test_detector_on_the_same_images(demo):
    folder, _ = demo
    still = ('--cfg-options', 'train_cfg.max_iters=1', 'optim_wrapper.optimizer.lr=0',
             'default_hooks.checkpoint.interval=1')
    for work_dir, options in (('untrained', still), ('boxes', ())):
        run(folder, 'train', DETECTOR, '--work-dir', work_dir, *options)
        last = (folder / work_dir / 'last_checkpoint').read_text().strip()
        run(folder, 'test', DETECTOR, last, '--work-dir', work_dir)
    found, untrained = metrics(folder / 'boxes'), metrics(folder / 'untrained')
    assert found['bbox']['mAP_50'] >= BOXES and found['segm']['mAP_50'] >= MASKS
    assert max(untrained[kind]['mAP_50'] for kind in ('bbox', 'segm')) < UNTRAINED_AP50
