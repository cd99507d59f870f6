"""The demo detector with mmcv's compiled operators and with ours: the same losses, the same AP."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from internvl_dense.data.sample import make_sample_dataset
from tests import tiny_runs
from tests.tiny_detection import DEMO

pytestmark = pytest.mark.slow

COMPILED = 'INTERNVL_DENSE_COMPILED_PYTHON'  # an interpreter that has this package and a compiled mmcv
BATCHES = 20
LOSS_TOLERANCE, AP_TOLERANCE = 1e-4, 0.002
LOSSES = ('loss', 'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask')


@pytest.fixture(scope='module')
def compiled() -> str:
    python = os.environ.get(COMPILED)
    if not python:
        pytest.skip(f'{COMPILED} is not set; tests/openmmlab/ext_ops/test_against_compiled.py says how to get one')
    code = 'import sys, mmcv.ops; assert getattr(sys.modules["mmcv._ext"], "__file__", None), "mmcv is not compiled"'
    subprocess.run([python, '-c', code], check=True)
    return python


def tool(python: str, name: str, *arguments: object, cwd: pathlib.Path) -> None:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(tiny_runs.ROOT)}
    words = [python, str(tiny_runs.ROOT / 'tools' / f'{name}.py'), *map(str, arguments)]
    process = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=1800)
    assert process.returncode == 0, process.stderr


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with data and `run/iter_300.pth`, trained with our operators."""

    folder = tmp_path_factory.mktemp('compiled')
    data = make_sample_dataset(folder / 'data' / 'demo', train=200, val=30)
    tool(sys.executable, 'train', DEMO, '--data-root', data, '--work-dir', folder / 'run', '--cfg-options',
         'train_cfg.max_iters=300', 'param_scheduler.0.max_iters=300', 'train_cfg.val_interval=300',
         'default_hooks.checkpoint.interval=300', cwd=folder)
    return folder


@pytest.fixture(scope='module')
def both(trained: pathlib.Path, compiled: str) -> dict[str, pathlib.Path]:
    """Work directories of 20 batches at rate 0 and of a test, by kind of operators."""

    folders = {}
    for kind, python in (('ours', sys.executable), ('compiled', compiled)):
        folder = folders[kind] = trained / kind
        checkpoint = trained / 'run' / 'iter_300.pth'
        tool(python, 'train', DEMO, '--data-root', trained / 'data' / 'demo', '--load-from', checkpoint, '--work-dir',
             folder / 'still', '--cfg-options', 'optim_wrapper.optimizer.lr=0', f'train_cfg.max_iters={BATCHES}',
             f'train_cfg.val_interval={10 * BATCHES}', 'default_hooks.logger.interval=1', 'log_processor.window_size=1',
             cwd=trained)
        tool(python, 'test', DEMO, checkpoint, '--data-root', trained / 'data' / 'demo', '--work-dir',
             folder / 'tested', cwd=trained)
    return folders


def test_losses_of_twenty_batches_agree(both: dict[str, pathlib.Path]) -> None:
    ours, theirs = ([row for row in tiny_runs.scalars(both[kind] / 'still') if 'loss' in row]
                    for kind in ('ours', 'compiled'))
    assert len(ours) == len(theirs) == BATCHES
    differences = {name: max(abs(a[name] - b[name]) for a, b in zip(ours, theirs, strict=True)) for name in LOSSES}
    print(differences)
    assert max(differences.values()) <= LOSS_TOLERANCE


def test_ap_agrees(both: dict[str, pathlib.Path]) -> None:
    ours, theirs = (json.loads((both[kind] / 'tested' / 'metrics.json').read_text()) for kind in ('ours', 'compiled'))
    for kind in ('bbox', 'segm'):
        assert ours[kind]['mAP'] > 0.005  # a detector that finds something
        assert ours[kind]['mAP'] == pytest.approx(theirs[kind]['mAP'], abs=AP_TOLERANCE)
