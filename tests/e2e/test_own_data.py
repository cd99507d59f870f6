"""`configs/own_data` on a folder of images: one edited line, then train and test."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from internvl_dense.data.class_names import read_class_names
from internvl_dense.data.sample import SAMPLE_POLICY
from internvl_dense.safe_load import load_file
from tests import tiny_runs

STEM = 'upernet_internvit_debug_own_data'
LINE = "data_root = 'data/mine'"


def edited_configs(folder: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    """A copy of the configs with the one line that a user edits; returns the config to run."""
    configs = pathlib.Path(shutil.copytree(tiny_runs.ROOT / 'configs', folder / 'configs'))
    base = configs / '_base_' / 'datasets' / 'own_data.py'
    text = base.read_text()
    assert text.count(LINE) == 1
    base.write_text(text.replace(LINE, f'data_root = {str(root)!r}'))
    return configs / 'own_data' / f'{STEM}.py'


def train_and_test(config: pathlib.Path, folder: pathlib.Path, last: int, *options: str):
    trained = tiny_runs.tool('train', config, *options, cwd=folder, timeout=7200)
    assert trained.returncode == 0, trained.stderr
    checkpoint = folder / 'work_dirs' / STEM / f'iter_{last}.pth'
    tested = tiny_runs.tool('test', config, checkpoint, *options, cwd=folder, timeout=7200)
    assert tested.returncode == 0, tested.stderr
    return trained.stdout, checkpoint, json.loads((folder / 'work_dirs' / STEM / 'metrics.json').read_text())


def test_a_folder_trains_and_tests(tmp_path):
    data = tiny_runs.make_data(tmp_path)
    for kind in ('images', 'annotations'):
        for split, name in (('training', 'train'), ('validation', 'val')):
            (data / kind / split).rename(data / kind / name)
    (data / 'classes.txt').write_text('\n'.join(SAMPLE_POLICY.classes))
    config = edited_configs(tmp_path, data)
    output, checkpoint, metrics = train_and_test(config, tmp_path, 4, '--cfg-options', 'epochs.total=1')
    assert 'training images: 8' in output and '4 iterations of 2 = 1.0 epochs of 4 iterations' in output
    assert load_file(checkpoint)['meta']['internvl_dense']['classes'] == list(SAMPLE_POLICY.classes)
    assert list(metrics['per_class']) == list(SAMPLE_POLICY.classes)
    # What the run wrote down is complete: other programs need neither the folder's classes nor its epochs.
    written = (checkpoint.parent / config.name).read_text()
    assert 'num_classes=6' in written and 'max_iters=4' in written and 'classes.txt' not in written


@pytest.mark.slow
def test_real_images(shared_dir, tmp_path):
    """100 street images of CamVid: 20 minutes on one core beside other work."""
    source, root = shared_dir / 'data' / 'camvid', tmp_path / 'streets'
    for split, count in (('train', 100), ('val', None)):
        for kind, suffix in (('images', '.jpg'), ('annotations', '.png')):
            (root / kind / split).mkdir(parents=True)
            for path in sorted((source / kind / split).glob(f'*{suffix}'))[:count]:
                shutil.copy(path, root / kind / split)
    shutil.copy(source / 'classes.txt', root)
    _, _, metrics = train_and_test(edited_configs(tmp_path, root), tmp_path, 500)
    assert list(metrics['per_class']) == list(read_class_names(root / 'classes.txt'))
    assert metrics['mIoU'] > 0.15  # a sign of life: sky, road and trees
