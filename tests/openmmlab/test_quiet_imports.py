"""Packages that a segmentation run does not use stay out of the process."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from internvl_dense.openmmlab.quiet_imports import hidden

NAMES = ('mmdet', 'transformers', 'bitsandbytes', 'deepspeed', 'dadaptation', 'lion_pytorch')
ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN = """
import sys
import internvl_dense.openmmlab
from argparse import Namespace
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.launch import build_model_on_meta
build_model_on_meta(load_config(Namespace(config='demo/upernet_internvit_debug_demo')))
"""


def fake_packages(folder: pathlib.Path) -> pathlib.Path:
    """Packages in front of the real ones; each leaves a file when it is imported."""
    for name in NAMES:
        package = folder / 'fakes' / name
        package.mkdir(parents=True)
        mark = folder / f'{name}.imported'
        package.joinpath('__init__.py').write_text(f"open({str(mark)!r}, 'w').close()\n__version__ = '99'\n")
    return folder / 'fakes'


def test_a_segmentation_model_imports_none_of_them_and_they_can_be_imported_later(tmp_path: pathlib.Path) -> None:
    path = os.pathsep.join([str(fake_packages(tmp_path)), str(ROOT)])
    code = f"{RUN}import glob\nprint(glob.glob({str(tmp_path / '*.imported')!r}))\nimport transformers\n"
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120,
                            env={**os.environ, 'PYTHONPATH': path})
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == '[]'
    assert [mark.stem for mark in tmp_path.glob('*.imported')] == ['transformers']


def test_hidden_packages_look_absent_and_come_back() -> None:
    name = 'xml'
    modules = {key: sys.modules.pop(key) for key in list(sys.modules) if key.partition('.')[0] == name}
    try:
        with hidden([name]):
            with pytest.raises(ModuleNotFoundError, match='xml.dom is not used here|xml is not used here'):
                importlib.import_module('xml.dom')
            assert importlib.import_module('json')
        assert importlib.util.find_spec(name) is not None
        assert importlib.import_module('xml.dom')
    finally:
        sys.modules.update(modules)


def test_a_package_that_is_imported_already_is_not_hidden() -> None:
    with hidden(['json']):
        assert importlib.import_module('json.tool')


def test_the_finder_goes_when_the_block_fails() -> None:
    before = list(sys.meta_path)
    with pytest.raises(RuntimeError), hidden(['xml']):
        raise RuntimeError
    assert sys.meta_path == before
