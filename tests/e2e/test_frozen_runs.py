"""Runs with a frozen trunk: their checkpoints hold what was trained, and ask for the trunk that it was trained on."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmseg.apis import inference_model, init_model
from PIL import Image

from internvl_dense.backbones.fingerprint import file_sha256
from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.commands import predict as predict_command
from internvl_dense.errors import run
from internvl_dense.safe_load import load_file, save_file
from tests import tiny_runs
from tests.checkpoints import random_state

TINY = VARIANTS.get('internvit_debug').replace(**tiny_runs.TINY_TRUNK)
NO_CHANNELS = {'model__decode_head__channels': None}  # a linear head is as wide as the trunk
LINEAR = tiny_runs.ROOT / 'configs' / f'{tiny_runs.LINEAR}.py'


@pytest.fixture(scope='module')
def frozen(data, tmp_path_factory):
    """A trunk, another one of the same shapes, and a run of 4 iterations on the first."""
    folder = tmp_path_factory.mktemp('frozen')
    for number, name in enumerate(('trunk', 'other')):
        save_file(random_state(TINY, seed=number), folder / f'{name}.pth')
    assert tiny_runs.train(tiny_runs.LINEAR, folder / 'run', '--weights', folder / 'trunk.pth', data=data,
                           **NO_CHANNELS) == 0
    return SimpleNamespace(folder=folder, trunk=folder / 'trunk.pth', other=folder / 'other.pth',
                           checkpoint=folder / 'run' / 'iter_4.pth')


def test_checkpoint_names_its_trunk_in_place_of_holding_it(frozen):
    checkpoint = load_file(frozen.checkpoint)
    assert not [key for key in checkpoint['state_dict'] if key.startswith('backbone.')]
    assert [key for key in checkpoint['state_dict'] if key.startswith('decode_head.')]
    assert checkpoint['meta']['internvl_dense']['trunk'] == {
        'prefix': 'backbone.', 'path': str(frozen.trunk), 'sha256': file_sha256(frozen.trunk)}
    assert frozen.checkpoint.stat().st_size < frozen.trunk.stat().st_size


def test_test_takes_the_trunk_again_and_repeats_the_validation(frozen, data, tmp_path):
    code = tiny_runs.test(tiny_runs.LINEAR, frozen.checkpoint, tmp_path, '--weights', frozen.trunk, data=data,
                          **NO_CHANNELS)
    assert code == 0
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    logged = [row for row in tiny_runs.scalars(frozen.folder / 'run') if 'mIoU' in row][-1]
    assert 100 * metrics['mIoU'] == pytest.approx(logged['mIoU'], abs=5e-5)
    assert metrics['run']['trained_from']['sha256'] == file_sha256(frozen.trunk)


def test_trunk_is_found_where_weights_are_looked_for(frozen, data, tmp_path, monkeypatch):
    """The path may have moved: the checksum decides."""
    moved = tmp_path / 'elsewhere' / 'renamed.pth'
    moved.parent.mkdir()
    moved.write_bytes(frozen.trunk.read_bytes())
    assert tiny_runs.test(tiny_runs.LINEAR, frozen.checkpoint, tmp_path / 'run', '--weights', moved, data=data,
                          **NO_CHANNELS) == 0


@pytest.mark.parametrize('command', ['test', 'predict', '--resume', '--load-from'])
def test_another_trunk_is_refused(frozen, data, tmp_path, capsys, command):
    options = tiny_runs.options(data, {'model.decode_head.channels': None})
    if command == 'test':
        code = tiny_runs.test(tiny_runs.LINEAR, frozen.checkpoint, tmp_path / 'run', '--weights', frozen.other,
                              data=data, **NO_CHANNELS)
    elif command == 'predict':
        words = [LINEAR, frozen.checkpoint, data / 'images' / 'validation', '--out', tmp_path / 'out', '--weights',
                 frozen.other, *options]
        code = run(lambda: predict_command.main([str(word) for word in words]))
    else:
        words = [command, frozen.checkpoint, '--weights', frozen.other]
        code = tiny_runs.train(tiny_runs.LINEAR, tmp_path / 'run', *words, data=data, train_cfg__max_iters=6,
                               **NO_CHANNELS)
    error = capsys.readouterr().err
    assert code == 2
    assert f'{frozen.other} is not the trunk' in error and file_sha256(frozen.trunk) in error
    assert '--weights PATH' in error and 'Traceback' not in error


@pytest.mark.parametrize(('weights', 'words'), [('random', "weights='random' names no file"),
                                                ('absent.pth', 'no file or folder absent.pth')])
def test_no_trunk_is_refused(frozen, data, tmp_path, capsys, weights, words):
    code = tiny_runs.test(tiny_runs.LINEAR, frozen.checkpoint, tmp_path, '--weights', weights, data=data, **NO_CHANNELS)
    assert code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / 'metrics.json').exists()


def test_resume_goes_on_as_if_nothing_had_happened(frozen, data, tmp_path):
    still = {'train_dataloader__dataset__pipeline__2__prob': 0.0, **NO_CHANNELS}
    for name, arguments in (('whole', []), ('resumed', ['--resume', tmp_path / 'whole' / 'iter_2.pth'])):
        assert tiny_runs.train(tiny_runs.LINEAR, tmp_path / name, '--weights', frozen.trunk, *arguments, data=data,
                               **still) == 0
    whole, resumed = (load_file(tmp_path / name / 'iter_4.pth') for name in ('whole', 'resumed'))
    assert whole['state_dict'].keys() == resumed['state_dict'].keys()
    assert all(torch.equal(value, resumed['state_dict'][key]) for key, value in whole['state_dict'].items())
    assert resumed['meta']['internvl_dense']['trunk'] == whole['meta']['internvl_dense']['trunk']


def test_moving_average_leaves_the_trunk_out_too_and_resumes(frozen, data, tmp_path):
    config = tmp_path / 'ema.py'
    config.write_text(f"_base_ = [{str(LINEAR)!r}]\ncustom_hooks = [dict(type='EMAHook')]\n")
    assert tiny_runs.train(config, tmp_path / 'run', '--weights', frozen.trunk, data=data, **NO_CHANNELS) == 0
    saved = load_file(tmp_path / 'run' / 'iter_4.pth')
    for state in (saved['state_dict'], saved['ema_state_dict']):
        assert not [key for key in state if 'backbone.' in key] and [key for key in state if 'decode_head.' in key]
    assert tiny_runs.train(config, tmp_path / 'run', '--resume', '--weights', frozen.trunk, data=data,
                           train_cfg__max_iters=6, **NO_CHANNELS) == 0
    assert (tmp_path / 'run' / 'iter_6.pth').exists()


def test_random_trunks_and_whole_copies_stay_in_the_checkpoint(frozen, data, tmp_path):
    kept = {'model__backbone__save_frozen': True}
    for name, weights, more in (('random', 'random', {}), ('kept', frozen.trunk, kept)):
        assert tiny_runs.train(tiny_runs.LINEAR, tmp_path / name, '--weights', weights, data=data, **NO_CHANNELS,
                               **more) == 0
        checkpoint = load_file(tmp_path / name / 'iter_4.pth')
        assert 'trunk' not in checkpoint['meta']['internvl_dense']
        assert 'backbone.pos_embed' in checkpoint['state_dict']


def test_predictions_of_our_command_and_of_mmseg_are_the_same(frozen, data, tmp_path):
    """mmseg's function knows nothing of trunks: the loader fills it, with the same check."""
    image = sorted((data / 'images' / 'validation').glob('*.jpg'))[0]
    options = tiny_runs.options(data, {'model.decode_head.channels': None})
    words = [LINEAR, frozen.checkpoint, image, '--out', tmp_path / 'out', '--weights', frozen.trunk, *options]
    assert run(lambda: predict_command.main([str(word) for word in words])) == 0
    mask = np.asarray(Image.open(next((tmp_path / 'out' / 'masks').rglob('*.png'))))
    overrides = {f'model.backbone.{key}': value for key, value in tiny_runs.TINY_TRUNK.items()}
    model = init_model(str(LINEAR), str(frozen.checkpoint), device='cpu',
                       cfg_options={**overrides, 'model.backbone.weights': str(frozen.trunk)})
    assert np.array_equal(inference_model(model, str(image)).pred_sem_seg.data[0].numpy(), mask)
    with pytest.raises(ValueError, match=re.escape(f'{frozen.other} is not the trunk')):
        init_model(str(LINEAR), str(frozen.checkpoint), device='cpu',
                   cfg_options={**overrides, 'model.backbone.weights': str(frozen.other)})
