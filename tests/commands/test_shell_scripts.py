"""The launch scripts: two real processes on this machine, and what Slurm would be asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from internvl_dense.safe_load import load_file
from tests import tiny_runs

TOOLS = tiny_runs.ROOT / 'tools'
SCRIPTS = {'dist_train.sh': 2, 'dist_test.sh': 3, 'slurm_train.sh': 3, 'slurm_test.sh': 4}  # needed arguments
FAKE_SRUN = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
'''
import json, os, sys
names = ('PYTHONPATH', 'MASTER_PORT')
json.dump([sys.argv[1:], {{name: os.environ[name] for name in names}}], open({path!r}, 'w'))
sys.exit(3)
"""


def script(name, *words, cwd, **environment) -> subprocess.CompletedProcess:
    """A script in a shell whose environment names nothing of this project."""
    kept = {key: os.environ[key] for key in ('PATH', 'HOME', 'TMPDIR') if key in os.environ}
    variables = {**kept, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **environment}
    command = [str(TOOLS / name), *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_data(tmp_path_factory.mktemp('sample'))


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """Two processes, two iterations, started in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp('dist') / 'any folder'
    folder.mkdir()
    options = tiny_runs.options(data, {'train_cfg.max_iters': 2})
    return folder, script('dist_train.sh', tiny_runs.CONFIG, 2, '--work-dir', 'run', *options, cwd=folder)


def test_dist_train_runs_two_processes(trained):
    folder, process = trained
    assert process.returncode == 0, process.stderr
    assert '4 images in an optimizer step' in process.stdout  # 2 processes x 2 images
    checkpoint = load_file(folder / 'run' / 'iter_2.pth')
    assert checkpoint['meta']['iter'] == 2
    assert 'loss' in json.dumps(tiny_runs.scalars(folder / 'run'))


def test_dist_test_passes_options_on_and_takes_a_port(trained, data):
    folder, _ = trained
    process = script('dist_test.sh', tiny_runs.CONFIG, 'run/iter_2.pth', 2, '--out', 'masks', '--work-dir', 'test',
                     *tiny_runs.options(data), cwd=folder, MASTER_ADDR='127.0.0.1', PORT=str(free_port()))
    assert process.returncode == 0, process.stderr
    assert len(list((folder / 'masks').glob('*.png'))) == 5
    assert 0 <= json.loads((folder / 'test' / 'metrics.json').read_text())['mIoU'] <= 1


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize('name', ['dist_train.sh', 'slurm_train.sh'])
def test_a_failing_run_makes_the_script_fail(name, tmp_path, fake_srun):
    words = {'dist_train.sh': ['no_such_config', 1], 'slurm_train.sh': ['gpus', 'job', 'no_such_config']}[name]
    process = script(name, *words, cwd=tmp_path, PATH=f'{fake_srun.parent}:{os.environ["PATH"]}')
    assert process.returncode != 0


@pytest.fixture
def fake_srun(tmp_path):
    """A program that writes down what it is asked and fails; its path."""
    program = tmp_path / 'bin' / 'srun'
    program.parent.mkdir()
    program.write_text(FAKE_SRUN.format(python=sys.executable, path=str(tmp_path / 'asked.json')))
    program.chmod(0o755)
    return program


def asked(fake_srun, name, *words, **environment):
    """Options of srun by name, the command that it is to run, and its environment."""
    folder = fake_srun.parent.parent
    path = f'{fake_srun.parent}:{os.environ["PATH"]}'
    process = script(name, *words, cwd=folder, PATH=path, **environment)
    assert process.returncode == 3, process.stderr  # that of srun
    arguments, variables = json.loads((folder / 'asked.json').read_text())
    start = arguments.index(sys.executable)
    return arguments[:start], arguments[start:], variables


def test_slurm_train_asks_for_one_task_a_gpu(fake_srun):
    options, command, variables = asked(fake_srun, 'slurm_train.sh', 'gpus', 'my job', 'a.py', '--amp')
    assert options == [
        '--partition', 'gpus', '--job-name', 'my job', '--gres', 'gpu:8', '--ntasks', '8', '--ntasks-per-node', '8',
        '--cpus-per-task', '5', '--kill-on-bad-exit=1',
    ]
    assert command == [sys.executable, '-u', str(TOOLS / 'train.py'), 'a.py', '--amp', '--launcher', 'slurm']
    assert variables['PYTHONPATH'] == str(tiny_runs.ROOT)
    assert 20000 <= int(variables['MASTER_PORT']) < 32000


def test_slurm_test_takes_its_environment(fake_srun):
    options, command, variables = asked(
        fake_srun, 'slurm_test.sh', 'gpus', 'job', 'a.py', 'b.pth', '--tta', GPUS='4', CPUS_PER_TASK='3',
        SRUN_ARGS='--quotatype=auto  -x node1', PORT='30001', PYTHONPATH='/other')
    given = dict(zip(options[4:12:2], options[5:12:2], strict=True))
    assert given == {'--gres': 'gpu:4', '--ntasks': '4', '--ntasks-per-node': '4', '--cpus-per-task': '3'}
    assert options[-3:] == ['--quotatype=auto', '-x', 'node1']
    assert command[2:] == [str(TOOLS / 'test.py'), 'a.py', 'b.pth', '--tta', '--launcher', 'slurm']
    assert variables == {'PYTHONPATH': f'{tiny_runs.ROOT}:/other', 'MASTER_PORT': '30001'}


def test_several_machines(fake_srun):
    options, _, _ = asked(fake_srun, 'slurm_train.sh', 'gpus', 'job', 'a.py', GPUS='32', GPUS_PER_NODE='4')
    assert options[5:10:2] == ['gpu:4', '32', '4']


@pytest.mark.parametrize('name', SCRIPTS)
def test_missing_arguments_show_the_usage(name, tmp_path):
    process = script(name, *['x'] * (SCRIPTS[name] - 1), cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr.startswith(f'usage: {name} ') and process.stdout == ''


@pytest.mark.parametrize(('name', 'words'), [('dist_train.sh', ['a.py']), ('dist_test.sh', ['a.py', 'b.pth'])])
def test_an_option_in_place_of_the_number_of_gpus(name, words, tmp_path):
    process = script(name, *words, '--amp', cwd=tmp_path)
    assert process.returncode == 2
    assert "GPUS is '--amp'" in process.stderr


@pytest.mark.parametrize('name', [*SCRIPTS, '_torchrun.sh', '_srun.sh'])
def test_scripts_can_be_executed(name):
    assert os.access(TOOLS / name, os.X_OK)
