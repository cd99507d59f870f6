"""What a built wheel and source archive carry."""

from __future__ import annotations

import fnmatch
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = ('pyproject.toml', 'setup.py', 'MANIFEST.in', 'README.md', 'LICENSE', 'constraints.txt')
FOLDERS = ('internvl_dense', 'configs', 'tools', 'tests')
# Planted in the copy that is built: a build that carries one of them would also carry a stray file of a checkout.
DECOYS = (
    'internvl_dense/street.jpg', 'internvl_dense/data/mask.png', 'internvl_dense/weights.safetensors',
    'configs/model.pth', 'configs/preview.png', 'tests/test_decoy.py', 'tools/street.jpeg',
)
PROBES = {'configs/_base_/probe.py', 'tools/probe.py'}  # must arrive, whatever else the folders hold
UNWANTED = (
    '*.jpg', '*.jpeg', '*.png', '*.pth', '*.pt', '*.safetensors', '*.pyc', 'tests/*', '*/tests/*', '*/bootstrap.py',
)


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of the checkout with the decoys, one config and one tool."""
    copy = tmp_path_factory.mktemp('source')
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__', 'parity'))
    for name in (*DECOYS, *PROBES):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).touch()
    return copy


def build(source: pathlib.Path, kind: str, target: pathlib.Path) -> pathlib.Path:
    """Builds a wheel or sdist with the installed setuptools, without a network."""
    code = f'from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})'
    result = subprocess.run([sys.executable, '-c', code], cwd=source, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (archive,) = target.iterdir()
    return archive


@pytest.fixture(scope='module')
def wheel(source: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in the wheel."""
    return zipfile.ZipFile(build(source, 'wheel', tmp_path_factory.mktemp('wheel'))).namelist()


@pytest.fixture(scope='module')
def sdist(source: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in the source archive, without its top folder."""
    with tarfile.open(build(source, 'sdist', tmp_path_factory.mktemp('sdist'))) as archive:
        return [name.partition('/')[2] for name in archive.getnames()]


def unwanted(names: list[str]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in UNWANTED)]


def checkout(folder: str) -> set[str]:
    """Python files below a folder of the checkout."""
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob('*.py')}


def test_wheel_holds_the_package_its_configs_and_tools(wheel: list[str]):
    shipped = checkout('configs') | checkout('tools') | PROBES
    assert {f'internvl_dense/.mim/{name}' for name in shipped - {'tools/bootstrap.py'}} <= set(wheel)
    assert {'internvl_dense/py.typed', *checkout('internvl_dense')} <= set(wheel)
    assert 'internvl_dense/.mim/configs/ade20k/few_shot/1of16_seed0.txt' in wheel
    assert any(name.endswith('licenses/LICENSE') for name in wheel)


def test_wheel_holds_nothing_else(wheel: list[str]):
    assert not unwanted(wheel)
    tops = {name.split('/')[0] for name in wheel}
    assert len(tops) == 2 and 'internvl_dense' in tops, tops


def test_sdist_can_be_built_from_and_holds_no_data(sdist: list[str]):
    assert {*FILES, *checkout('internvl_dense'), *checkout('configs'), *PROBES} <= set(sdist)
    assert 'configs/ade20k/few_shot/1of16_seed0.txt' in sdist
    assert [name for name in unwanted(sdist) if name != 'tools/bootstrap.py'] == []


def test_metadata_names_version_licence_and_bounds(source: pathlib.Path, tmp_path: pathlib.Path):
    import internvl_dense

    with zipfile.ZipFile(build(source, 'wheel', tmp_path)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith('METADATA'))
        metadata = archive.read(name).decode()
    assert f'Version: {internvl_dense.__version__}\n' in metadata
    assert 'License-Expression: Apache-2.0\n' in metadata
    core = [line for line in re.findall(r'^Requires-Dist: (.*)$', metadata, re.M) if 'extra ==' not in line]
    assert sorted(re.split(r'[<>=]', line)[0] for line in core) == ['numpy', 'safetensors', 'torch']


def normal(requirement: str) -> str:
    return re.split(r'[<>=\[;]', requirement)[0].strip().lower().replace('_', '-')


def test_every_dependency_of_the_checks_is_pinned():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    extras = [project['optional-dependencies'][name] for name in ('openmmlab', 'hub', 'dev')]
    asked = [*project['dependencies'], *(requirement for extra in extras for requirement in extra)]
    lines = [line for line in (ROOT / 'constraints.txt').read_text().splitlines() if line and not line.startswith('#')]
    pins = dict(line.split('==') for line in lines)
    pinned = {normal(name) for name in pins}
    assert not [r for r in asked if normal(r) not in pinned]
    assert not [version for version in pins.values() if '+' in version], 'a local build exists on one machine only'
    # Both builds fill the folder cv2; with two versions one would overwrite half of the other.
    assert pins['opencv-python'] == pins['opencv-python-headless']


def test_git_ignores_no_source_file():
    """A pattern such as `data/` in .gitignore would drop `internvl_dense/data` from every commit."""
    if not (ROOT / '.git').exists() or shutil.which('git') is None:
        pytest.skip('not a git checkout')
    names = [path for folder in FOLDERS for path in (ROOT / folder).rglob('*') if path.is_file()]
    kept = '\n'.join(str(path.relative_to(ROOT)) for path in names if '__pycache__' not in path.parts)
    command = ['git', 'check-ignore', '--no-index', '--stdin']
    result = subprocess.run(command, cwd=ROOT, input=kept, capture_output=True, text=True)
    assert result.returncode in (0, 1), result.stderr
    assert result.stdout == ''
