"""OpenMMLab packages that are installed over each other are named; a sound environment hears nothing."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import warnings

import pytest

from internvl_dense.openmmlab import owners

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECK = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location('owners', {str(ROOT / 'internvl_dense/openmmlab/owners.py')!r})
owners = sys.modules['owners'] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(owners)
owners.report()
"""


def install(folder: pathlib.Path, name: str, version: str, files: dict[str, str]) -> None:
    """What pip leaves behind for a distribution; `files` maps paths to what stands for their hash."""
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir(parents=True)
    info.joinpath('METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    rows = [f'{path},sha256={digest},1' for path, digest in files.items()]
    info.joinpath('RECORD').write_text('\n'.join([*rows, f'{info.name}/RECORD,,']))


def run(code: str, *folders: pathlib.Path) -> str:
    """What a new process without site-packages of its own says, where `folders` are on its path."""
    result = subprocess.run([sys.executable, '-S', '-c', code], capture_output=True, text=True, timeout=60,
                            env={**os.environ, 'PYTHONPATH': os.pathsep.join([*map(str, folders), str(ROOT)])})
    assert result.returncode == 0 and not result.stdout, result.stderr
    return result.stderr


def test_two_owners_of_different_files(tmp_path: pathlib.Path) -> None:
    install(tmp_path, 'onedl-mmcv', '2.3.6', {f'mmcv/{name}.py': 'new' for name in 'abcd'} | {'mmcv/same.py': 'one'})
    install(tmp_path, 'mmcv-lite', '2.1.0', {f'mmcv/{name}.py': 'old' for name in 'abcde'} | {'mmcv/same.py': 'one'})
    install(tmp_path, 'mmdet', '3.3.0', {'mmdet/x.py': 'old'})
    install(tmp_path, 'onedl-mmdetection', '3.5.1', {'mmdet/x.py': 'new'})
    install(tmp_path, 'onedl-mmengine', '0.10.12', {'mmengine/x.py': 'new'})
    said = run(CHECK, tmp_path)
    assert said.count('DoubleInstallWarning') == 1 and '2 problems' in said
    assert 'mmcv: onedl-mmcv 2.3.6 and mmcv-lite 2.1.0 are both installed and 4 of their files differ' in said
    assert '(mmcv/a.py, mmcv/b.py, mmcv/c.py, ...)' in said and 'mmengine' not in said
    assert ('Way out: pip uninstall -y onedl-mmcv mmcv-lite onedl-mmdetection mmdet && '
            'pip install onedl-mmcv==2.3.6 onedl-mmdetection==3.5.1') in said


@pytest.mark.parametrize(('name', 'files'), [
    ('mmcv-lite', {'mmcv/a.py': 'new'}),
    ('mmcv-lite', {'mmcv/b.py': 'new'}),
    ('mmcv-lite', {'docs/a.py': 'old'}),
    ('mmcv-tools', {'mmcv/a.py': 'old'}),
], ids=['same content', 'other files', 'other folder', 'unknown distribution'])
def test_no_clash(tmp_path: pathlib.Path, name: str, files: dict[str, str]) -> None:
    install(tmp_path, 'onedl-mmcv', '2.3.6', {'mmcv/a.py': 'new', 'docs/a.py': 'new'})
    install(tmp_path, name, '2.1.0', files)
    assert run(CHECK, tmp_path) == ''


def test_one_distribution_on_two_paths_is_one_owner(tmp_path: pathlib.Path) -> None:
    for folder, digest in (('user', 'new'), ('system', 'old')):
        install(tmp_path / folder, 'onedl-mmcv', '2.3.6', {'mmcv/a.py': digest})
    assert run(CHECK, tmp_path / 'user', tmp_path / 'system') == ''


def test_a_distribution_without_a_list_of_files(tmp_path: pathlib.Path) -> None:
    install(tmp_path, 'onedl-mmcv', '2.3.6', {'mmcv/a.py': 'new'})
    install(tmp_path, 'mmcv', '2.1.0', {})
    (tmp_path / 'mmcv-2.1.0.dist-info' / 'RECORD').unlink()
    assert run(CHECK, tmp_path) == ''


def test_this_environment_is_sound() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        owners.report()


def test_importing_the_package_for_openmmlab_warns(tmp_path: pathlib.Path) -> None:
    install(tmp_path, 'mmcv-full', '1.7.2', {'mmcv/__init__.py': 'other'})  # beside the one that runs these tests
    result = subprocess.run([sys.executable, '-c', 'import internvl_dense.openmmlab'], capture_output=True, text=True,
                            timeout=120, env={**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'})
    assert result.returncode == 0, result.stderr
    assert 'mmcv-full 1.7.2 are both installed and 1 of their files differ' in result.stderr
