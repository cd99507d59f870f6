"""Stopping and going on: `--resume`, `--load-from`, moving averages and accumulated gradients."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from internvl_dense.safe_load import load_file
from tests import tiny_runs
from tests.tiny_runs import STILL

LONG = {'train_cfg__max_iters': 6, **STILL}


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    """Six iterations without a break, saved after 2, 4 and 6."""
    work_dir = tmp_path_factory.mktemp('whole')
    assert tiny_runs.train(tiny_runs.CONFIG, work_dir, data=data, default_hooks__checkpoint__max_keep_ckpts=9,
                           **LONG) == 0
    return work_dir


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def assert_continues(work_dir, whole, start):
    """The run did the iterations after `start`, with the losses and the end of the uninterrupted one."""
    expected = tiny_runs.losses(whole)
    assert tiny_runs.losses(work_dir) == {i: expected[i] for i in range(start + 1, 7)}
    ends = [load_file(folder / 'iter_6.pth') for folder in (work_dir, whole)]
    assert same(ends[0]['state_dict'], ends[1]['state_dict'])
    assert [end['meta']['iter'] for end in ends] == [6, 6]
    assert [end['param_schedulers'][0]['last_step'] for end in ends] == [6, 6]


def test_resume_a_path(whole, data, tmp_path):
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path, '--resume', whole / 'iter_2.pth', data=data, **LONG) == 0
    assert_continues(tmp_path, whole, start=2)


def test_resume_auto_goes_on_where_it_stopped(whole, data, tmp_path):
    shutil.copy(whole / 'iter_4.pth', tmp_path)
    # The work directory was moved since: the file names a path that is gone.
    (tmp_path / 'last_checkpoint').write_text('/gone/iter_4.pth')
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path, '--resume', data=data, **LONG) == 0
    assert_continues(tmp_path, whole, start=4)


def test_resume_auto_starts_anew_in_an_empty_folder(whole, data, tmp_path):
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path, '--resume', 'auto', data=data, **LONG) == 0
    assert tiny_runs.losses(tmp_path) == tiny_runs.losses(whole)


def test_load_from_takes_the_weights_only(whole, data, tmp_path):
    source = whole / 'iter_6.pth'
    arguments = ('--load-from', source, '--resume', 'auto')  # there is nothing to resume yet
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path, *arguments, data=data, optim_wrapper__optimizer__lr=0.0,
                           train_cfg__max_iters=2) == 0
    assert sorted(tiny_runs.losses(tmp_path)) == [1, 2]
    end, start = load_file(tmp_path / 'iter_2.pth'), load_file(source)
    trained = [key for key in start['state_dict'] if 'running_' not in key and 'num_batches' not in key]
    assert all(torch.equal(end['state_dict'][key], start['state_dict'][key]) for key in trained)  # the rate is 0
    assert end['meta']['internvl_dense']['weights']['path'] == str(source)
    assert len(end['meta']['internvl_dense']['weights']['sha256']) == 64


def test_resumed_run_remembers_its_origin(whole, data, tmp_path):
    changes = {'train_cfg__max_iters': 2}
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path, '--load-from', whole / 'iter_6.pth', data=data, **changes) == 0
    before = load_file(tmp_path / 'iter_2.pth')['meta']['internvl_dense']['weights']
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path, '--resume', data=data) == 0
    assert load_file(tmp_path / 'iter_4.pth')['meta']['internvl_dense']['weights'] == before


def test_what_cannot_be_resumed(whole, data, tmp_path, capsys):
    best = next(whole.glob('best_*.pth'))
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path, '--resume', best, data=data) == 2
    assert 'cannot be resumed, it has no optimizer' in capsys.readouterr().err
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path, '--resume', tmp_path / 'none.pth', data=data) == 2
    assert 'none.pth does not exist' in capsys.readouterr().err
    both = ('--resume', whole / 'iter_2.pth', '--load-from', whole / 'iter_4.pth')
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path, *both, data=data) == 2
    assert 'a run starts from one of them' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_accumulated_gradients_resume(data, tmp_path):
    changes = {'optim_wrapper__accumulative_counts': 2, **STILL}
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'whole', data=data, train_cfg__max_iters=6, **changes) == 0
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'part', data=data, **changes) == 0
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'rest', '--resume', tmp_path / 'part' / 'iter_4.pth',
                           data=data, train_cfg__max_iters=6, **changes) == 0
    assert_continues(tmp_path / 'rest', tmp_path / 'whole', start=4)
    state = load_file(tmp_path / 'whole' / 'iter_6.pth')['optimizer']['state']
    assert {float(entry['step']) for entry in state.values()} == {3.0}


@pytest.fixture(scope='module')
def ema(data, tmp_path_factory):
    """A config with a moving average, and six iterations of it without a break."""
    folder = tmp_path_factory.mktemp('ema')
    base = tiny_runs.ROOT / 'configs' / f'{tiny_runs.CONFIG}.py'
    (folder / 'ema.py').write_text(f'_base_ = [{str(base)!r}]\ncustom_hooks = [dict(type="EMAHook", momentum=0.25)]\n')
    assert tiny_runs.train(folder / 'ema.py', folder / 'run', data=data, default_hooks__checkpoint__max_keep_ckpts=9,
                           **LONG) == 0
    return folder / 'ema.py', folder / 'run'


def test_moving_average(ema, data, tmp_path):
    config, work_dir = ema
    end = load_file(work_dir / 'iter_6.pth')
    averaged, trained = end['state_dict'], end['ema_state_dict']  # EMAHook stores the average as the model
    key = 'decode_head.conv_seg.weight'
    assert not torch.equal(averaged[key], trained[f'module.{key}'])
    # The test sees what the validation saw: the average.
    assert tiny_runs.test(config, work_dir / 'iter_6.pth', tmp_path, data=data) == 0
    logged = [row['mIoU'] for row in tiny_runs.scalars(work_dir) if 'mIoU' in row]
    assert 100 * json.loads((tmp_path / 'metrics.json').read_text())['mIoU'] == pytest.approx(logged[-1], abs=1e-9)


def test_moving_average_resumes(ema, data, tmp_path):
    config, whole = ema
    assert tiny_runs.train(config, tmp_path, '--resume', whole / 'iter_4.pth', data=data, **LONG) == 0
    assert_continues(tmp_path, whole, start=4)
    averages = [load_file(folder / 'iter_6.pth')['ema_state_dict'] for folder in (whole, tmp_path)]
    assert same(*averages)
