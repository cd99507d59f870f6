"""The function under test with the numbers of the miniatures, and its archives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from internvl_dense.data.prepare.run import LAYOUTS, prepare
from tests.data.prepare import miniatures

Prepare = Callable[..., list[str]]


class Steps:
    def __init__(self, total: int, unit: str) -> None:
        self.left = total

    def step(self) -> None:
        self.left -= 1


@pytest.fixture
def run(tmp_path: Path) -> Prepare:
    """Prepares into tmp_path/out and returns what was said."""

    def call(name: str, *sources: Path, out: Path = tmp_path / 'out', **options: object) -> list[str]:
        lines: list[str] = []
        options = {'counts': miniatures.COUNTS, 'say': lines.append, 'progress': Steps, 'threads': 2, **options}
        assert prepare(LAYOUTS[name], sources, out, **options) == out / LAYOUTS[name].folder  # type: ignore[arg-type]
        return lines

    return call


@pytest.fixture(params=sorted(LAYOUTS))
def data_set(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def archives(tmp_path: Path, data_set: str) -> Path:
    """A folder with the archives of one data set."""
    return miniatures.write_archives(tmp_path / 'downloads', data_set)
