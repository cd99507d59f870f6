"""mmseg's own tools and inference functions read our configs and checkpoints."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import numpy as np
import pytest
import torch
from mmseg.apis import MMSegInferencer, inference_model, init_model
from PIL import Image

from tests import tiny_runs

CONFIG = tiny_runs.ROOT / 'configs' / f'{tiny_runs.CONFIG}.py'
TINY_MODEL = {f'model.backbone.{key}': value for key, value in tiny_runs.TINY_TRUNK.items()}


@pytest.fixture(scope='module')
def tools():
    """The folder of tools that mmseg installs."""
    package = importlib.util.find_spec('mmseg').submodule_search_locations[0]
    return pathlib.Path(package) / '.mim' / 'tools'


@pytest.fixture(scope='module')
def trained(tools, data, tmp_path_factory):
    """mmseg's train tool, then its test tool, from a folder that knows nothing of this project."""
    folder = tmp_path_factory.mktemp('elsewhere')
    for name, arguments in (('train', [CONFIG]), ('test', [CONFIG, 'run/iter_4.pth', '--out', 'masks'])):
        process = tiny_runs.python(tools / f'{name}.py', *arguments, '--work-dir', 'run', *tiny_runs.options(data),
                                   cwd=folder)
        assert process.returncode == 0, process.stderr
    return folder


def test_train_and_test_agree(trained):
    logged = [row for row in tiny_runs.scalars(trained / 'run') if 'mIoU' in row]
    metrics = json.loads((trained / 'run' / 'metrics.json').read_text())
    assert [row['step'] for row in logged] == [2, 4]
    assert 100 * metrics['mIoU'] == pytest.approx(logged[-1]['mIoU'], abs=5e-5)
    assert len(list((trained / 'masks').glob('*.png'))) == 5


def test_our_tool_reads_what_mmseg_trained(trained, data, tmp_path):
    assert tiny_runs.test(tiny_runs.CONFIG, trained / 'run' / 'iter_4.pth', tmp_path, data=data) == 0
    ours = json.loads((tmp_path / 'metrics.json').read_text())
    theirs = json.loads((trained / 'run' / 'metrics.json').read_text())
    assert ours.pop('run')['trained_from'] == theirs.pop('run')['trained_from'] == {'path': 'random', 'sha256': None}
    assert ours == theirs


@pytest.fixture(scope='module')
def image(data):
    return sorted((data / 'images' / 'validation').glob('*.jpg'))[0]


def test_inference_functions(trained, image):
    options = {**TINY_MODEL, 'model.decode_head.channels': 8}
    model = init_model(str(CONFIG), str(trained / 'run' / 'iter_4.pth'), device='cpu', cfg_options=options)
    result = inference_model(model, str(image))
    assert result.pred_sem_seg.data.shape == (1, 140, 140)
    mask = np.asarray(Image.open(trained / 'masks' / f'{image.stem}.png'))
    assert torch.equal(result.pred_sem_seg.data[0], torch.from_numpy(mask.astype(np.int64)))


def test_inferencer(trained, image):
    config = trained / 'run' / CONFIG.name  # as the run wrote it, with its options
    inferencer = MMSegInferencer(str(config), str(trained / 'run' / 'iter_4.pth'), device='cpu')
    found = inferencer(str(image), return_vis=False)['predictions']
    assert found.shape == (140, 140) and found.max() < 6
