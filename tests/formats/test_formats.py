"""Checkpoints that earlier versions wrote: they load, predict what they predicted, and can be resumed.

The files are written by write_format.py and never change.
"""

from __future__ import annotations

import pathlib
from argparse import Namespace

import pytest
import torch

from internvl_dense.openmmlab import checkpoint_meta
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.strict_load import load_model_state
from internvl_dense.safe_load import load_file
from tests import tiny_runs
from tests.formats.write_format import predict

FOLDER = pathlib.Path(__file__).resolve().parent
FILES = sorted(FOLDER.glob('format_*.pth'))
MAX_BYTES = 200_000


def test_every_format_has_a_file():
    assert [path.stem for path in FILES] == [f'format_{i}' for i in range(1, checkpoint_meta.FORMAT + 1)]


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_plain_data_for_torch_itself(path):
    assert path.stat().st_size < MAX_BYTES
    assert set(torch.load(path, weights_only=True)) >= {'state_dict', 'meta', 'optimizer', 'param_schedulers'}


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_prediction(path):
    checkpoint = load_file(path)
    meta = checkpoint_meta.read(checkpoint, str(path))
    assert meta['variant'] == 'internvit_debug' and len(meta['classes']) == 6
    assert meta['label_policy'] == {'ignore_index': 255, 'reduce_zero_label': False}
    model = tiny_runs.build_model(load_config(Namespace(config=str(path.with_suffix('.py')), weights='random')))
    expected = load_file(path.with_name(f'{path.stem}_expected.pt'))
    untrained = predict(model, expected['image'])
    load_model_state(model, checkpoint['state_dict'])
    logits = predict(model, expected['image'])
    assert not torch.allclose(untrained, expected['logits'], atol=1e-2)
    torch.testing.assert_close(logits, expected['logits'], rtol=1e-4, atol=1e-5)
    assert torch.equal(logits.argmax(0), expected['logits'].argmax(0))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_resume(path, tmp_path):
    data = tiny_runs.make_data(tmp_path)
    changes = {f'model__backbone__{key}': None for key in tiny_runs.TINY_TRUNK}
    assert tiny_runs.train(path.with_suffix('.py'), tmp_path / 'run', '--resume', path, data=data,
                           model__decode_head__channels=None, train_cfg__max_iters=3, **changes) == 0
    assert list(tiny_runs.losses(tmp_path / 'run')) == [3]  # two were done
