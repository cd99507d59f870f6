"""These tests call the operators through mmcv, so they say nothing where mmcv is compiled."""

from __future__ import annotations

import sys

import pytest
import torch

import internvl_dense.openmmlab  # noqa: F401  installs the stand-in
from internvl_dense.openmmlab.ops_fallback import NAME, _Extension


@pytest.fixture(autouse=True)
def stand_in() -> None:
    if not isinstance(sys.modules.get(NAME), _Extension):
        pytest.skip('mmcv is compiled here')
    torch.manual_seed(0)
