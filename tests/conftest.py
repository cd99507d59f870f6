"""Fixtures shared by every test."""

from __future__ import annotations

import os
import pathlib

import pytest
from hypothesis import settings

# A check that passes today passes tomorrow; HYPOTHESIS_PROFILE=explore looks for new cases.
settings.register_profile('repeatable', derandomize=True, deadline=None)
settings.register_profile('explore', deadline=None)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'repeatable'))

# Threads of the numeric libraries fight each other on small machines; set before torch is imported.
os.environ.setdefault('OMP_NUM_THREADS', '1')

SHARED = 'INTERNVL_DENSE_SHARED'


@pytest.fixture(scope='session')
def repo_root() -> pathlib.Path:
    """The checkout that holds `configs/` and `tools/`."""
    return pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def shared_dir() -> pathlib.Path:
    """Folder with real images (CamVid, ADE20K samples), which the repository does not ship."""
    root = os.environ.get(SHARED)
    if not root:
        pytest.skip(f'{SHARED} is not set: it names the folder with the real sample images')
    path = pathlib.Path(root)
    if not path.is_dir():
        pytest.skip(f'{SHARED}={root} is not a folder')
    return path
