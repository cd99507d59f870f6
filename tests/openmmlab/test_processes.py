"""How many processes a run has, from what launchers leave in the environment."""

from __future__ import annotations

import pytest

from internvl_dense.errors import UserError
from internvl_dense.openmmlab.processes import RANK_NAMES, TORCHRUN, planned_processes


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in (TORCHRUN, *(name for names in RANK_NAMES.values() for name in names)):
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher(monkeypatch):
    assert planned_processes('none') == (0, 1)
    monkeypatch.setenv('WORLD_SIZE', '4')  # some clusters set it in every container
    assert planned_processes('none') == (0, 1)


@pytest.mark.parametrize('launcher', RANK_NAMES)
def test_launchers(monkeypatch, launcher):
    rank, count = RANK_NAMES[launcher]
    monkeypatch.setenv(rank, '3')
    with pytest.raises(UserError, match=f'--launcher {launcher}: {count} not set'):
        planned_processes(launcher)
    monkeypatch.setenv(count, '8')
    assert planned_processes(launcher) == (3, 8)


def test_torchrun_needs_the_option(monkeypatch):
    monkeypatch.setenv(TORCHRUN, 'x')
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(UserError, match='torchrun started 2 processes.*add --launcher pytorch'):
        planned_processes('none')
