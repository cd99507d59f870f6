"""Two real processes: training, resuming, testing, and the same step as one process takes."""

from __future__ import annotations

import json
import pathlib

import pytest
import torch

from internvl_dense.openmmlab.launch import build_runner
from internvl_dense.safe_load import load_file, save_file
from tests import tiny_runs


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_data(tmp_path_factory.mktemp('sample'))


@pytest.fixture(scope='module')
def first(data, tmp_path_factory):
    """tools/train.py under torchrun; the folder holds its work directory `first`."""
    folder = tmp_path_factory.mktemp('ddp')
    process = tiny_runs.tool('train', tiny_runs.CONFIG, '--launcher', 'pytorch', '--strategy', 'ddp', '--work-dir',
                             folder / 'first', *tiny_runs.options(data), launcher=tiny_runs.torchrun(2), cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder, process


@pytest.fixture(scope='module')
def whole_step(first, data):
    """State dict before and after one process took one step with all four images."""
    folder, _ = first
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 140, 140), generator=generator, dtype=torch.uint8)
    # No ignored pixels: each process divides by its own count of pixels, as in mmseg.
    labels = torch.randint(0, 6, (4, 1, 140, 140), generator=generator)
    config = tiny_runs.tiny_config(tiny_runs.CONFIG, folder / 'step', data, model__decode_head__dropout_ratio=0.0,
                                    model__auxiliary_head__dropout_ratio=0.0)
    start = tiny_runs.build_model(config).state_dict()
    save_file({'state_dict': start, 'images': images, 'labels': labels}, folder / 'step.pth')
    return start, tiny_runs.sgd_step(build_runner(config), start, images, labels).state_dict()


@pytest.fixture(scope='module')
def ranks(first, whole_step, data):
    """What each of the two processes of ddp_session.py found."""
    folder, _ = first
    process = tiny_runs.python(pathlib.Path(__file__).with_name('ddp_session.py'), folder, data,
                               launcher=tiny_runs.torchrun(2), cwd=folder)
    assert process.returncode == 0, process.stderr
    return [json.loads((folder / f'rank_{rank}.json').read_text()) for rank in range(2)]


def test_the_tool_trains(first):
    folder, process = first
    rows = [row for row in tiny_runs.scalars(folder / 'first') if 'loss' in row]
    assert [row['step'] for row in rows] == [1, 2, 3, 4]
    assert process.stdout.count('images in an optimizer step') == 1  # said once, for both
    assert '4 images in an optimizer step' in process.stdout
    assert not list((folder / 'first').glob('.*'))  # no half-written files


def test_resume_continues_and_processes_stay_equal(ranks):
    first, second = (rank['resume'] for rank in ranks)
    assert first['iterations'] == second['iterations'] == 6
    assert first['weights'] == second['weights']


def test_processes_leave_their_group_before_python_ends(first, ranks):
    folder, _ = first
    assert [json.loads((folder / f'in_group_{rank}.json').read_text()) for rank in range(2)] == [False, False]


def test_only_the_first_process_writes(ranks):
    assert ranks[0]['resume']['written'] >= 1
    assert ranks[1]['resume']['written'] == 0


def test_metrics_equal_those_of_one_process(first, ranks, data, tmp_path):
    folder, _ = first
    assert tiny_runs.test(tiny_runs.CONFIG, folder / 'first' / 'iter_4.pth', tmp_path, data=data) == 0
    expected = json.loads((tmp_path / 'metrics.json').read_text())
    assert json.loads((folder / 'tested' / 'metrics.json').read_text()) == expected  # 5 images on 2 processes
    for rank in ranks:
        assert rank['test']['mIoU'] == 100 * expected['mIoU']


def test_frozen_trunk_needs_no_flag(ranks):
    assert ranks[0]['frozen'] == ranks[1]['frozen']
    assert ranks[0]['frozen']['trunk_kept'] and not ranks[0]['frozen']['unused']


def test_one_step_equals_that_of_one_process(first, ranks, whole_step):
    folder, _ = first
    start, expected = whole_step
    found = load_file(folder / 'stepped.pth')
    assert ranks[0]['one_step'] == ranks[1]['one_step']
    moved = max(float((expected[key] - start[key]).abs().max()) for key in start)
    off = {key: float((found[key].float() - expected[key].float()).abs().max()) for key in expected}
    assert moved > 1e-2
    assert max(off.values()) < 1e-5, max(off, key=off.get)


@pytest.mark.parametrize(('arguments', 'environment', 'message'), [
    ((), {'TORCHELASTIC_RUN_ID': 'x', 'WORLD_SIZE': '2'}, 'add --launcher pytorch'),
    (('--strategy', 'ddp'), {}, 'torchrun --nproc_per_node N'),
    (('--launcher', 'pytorch'), {}, 'RANK and WORLD_SIZE not set'),
    (('--launcher', 'pytorch', '--strategy', 'single'), {'RANK': '0', 'WORLD_SIZE': '2'}, 'use --strategy ddp'),
], ids=['launcher forgotten', 'strategy alone', 'launcher alone', 'wrong strategy'])
def test_mismatch_of_launcher_and_strategy(data, tmp_path, monkeypatch, capsys, arguments, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path, *arguments, data=data) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob('*.pth'))
