"""Tensors computed once by the published model classes at tiny size; ours must reproduce them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

DATA = pathlib.Path(__file__).parent / 'data'


@pytest.fixture(scope='session')
def golden() -> Callable[[str], Any]:
    """Returns the content of a golden file by its stem."""
    return lambda stem: torch.load(DATA / f'{stem}.pt', weights_only=True)
