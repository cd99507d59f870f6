"""The operators against mmcv's own, compiled for the CPU.

Builds mmcv in a temporary environment, a quarter of an hour of one core, or takes the Python of one that exists from
INTERNVL_DENSE_COMPILED_PYTHON.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sysconfig
import venv

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCRIPT = pathlib.Path(__file__).with_name('compiled_comparison.py')
CLOSE = {'float64': 1e-9, 'float32': 5e-5}  # of the largest value, or of 1 if that is smaller
WITHOUT_KERNEL = ['roi_pool', 'sigmoid_focal_loss', 'softmax_focal_loss', 'ms_deform_attn', 'masked_conv2d']


def run(*command: str | pathlib.Path, **variables: str) -> str:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT,
                            env={**os.environ, **variables})
    assert result.returncode == 0, f'{result.stdout[-4000:]}\n{result.stderr[-4000:]}'
    return result.stdout


def build(folder: pathlib.Path) -> pathlib.Path:
    """An environment that shares every package with this one but mmcv."""
    import mmcv

    venv.create(folder, with_pip=True)
    python = folder / 'bin' / 'python'
    own = run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip()
    pathlib.Path(own, 'shared.pth').write_text(sysconfig.get_path('purelib') + '\n', encoding='utf-8')
    pip = (python, '-m', 'pip', 'install', '--quiet', '--no-cache-dir')
    run(*pip, '--upgrade', 'setuptools', 'wheel', 'packaging', 'ninja', 'psutil')
    run(*pip, '--no-build-isolation', '--no-deps', '--ignore-installed', f'onedl-mmcv=={mmcv.__version__}',
        MAX_JOBS=os.environ.get('MAX_JOBS', '1'))
    return python


@pytest.fixture(scope='module')
def compiled(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    given = os.environ.get('INTERNVL_DENSE_COMPILED_PYTHON')
    return pathlib.Path(given) if given else build(tmp_path_factory.mktemp('compiled') / 'venv')


@pytest.mark.slow
def test_every_operator_with_a_cpu_kernel_agrees(compiled: pathlib.Path) -> None:
    found = json.loads(run(compiled, SCRIPT, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1').splitlines()[-1])
    for key, difference in found['worst'].items():
        print(f'{key:32} {difference:9.1e}   {found["times"][key]:6.2f} times as long')
    print(*found['without_kernel'], sep='\n')
    assert len(found['worst']) == 5 + 2 * 6
    assert not {key: d for key, d in found['worst'].items() if d > CLOSE[key.split()[-1]]}
    assert [line.partition(':')[0] for line in found['without_kernel']] == WITHOUT_KERNEL


