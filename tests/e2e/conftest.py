"""Data, and one small run that several tests look at."""

from __future__ import annotations

import pathlib
import subprocess
from dataclasses import dataclass

import pytest

from tests import tiny_runs


@dataclass(frozen=True)
class Run:
    """A finished training run of 4 iterations with checkpoints and validations after 2 and 4."""

    work_dir: pathlib.Path
    process: subprocess.CompletedProcess[str]

    @property
    def checkpoint(self) -> pathlib.Path:
        return self.work_dir / 'iter_4.pth'


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_runs.make_data(tmp_path_factory.mktemp('sample'))


@pytest.fixture(scope='session')
def first(tmp_path_factory: pytest.TempPathFactory, data: pathlib.Path) -> Run:
    """Trained by tools/train.py, into a folder whose name has a space."""
    work_dir = tmp_path_factory.mktemp('first') / 'work dir' / 'run'
    process = tiny_runs.tool('train', tiny_runs.CONFIG, '--work-dir', work_dir, '--seed', 7, *tiny_runs.options(data),
                             cwd=work_dir.parent.parent)
    assert process.returncode == 0, process.stderr
    return Run(work_dir, process)
