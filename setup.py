"""Adds `configs/` and `tools/` to a build as `internvl_dense/.mim`, where OpenMMLab's `mim` looks for them."""

from __future__ import annotations

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).resolve().parent
SUFFIXES = ('.py', '.sh', '.json', '.txt', '.yml', '.yaml')
CHECKOUT_ONLY = 'bootstrap.py'


def mim_files() -> list[str]:
    """Files that an installed package carries, relative to the checkout."""
    found = (path for folder in ('configs', 'tools') for path in (ROOT / folder).rglob('*'))
    return sorted(
        path.relative_to(ROOT).as_posix() for path in found if path.suffix in SUFFIXES and path.name != CHECKOUT_ONLY
    )


class BuildWithMim(build_py):
    """build_py, then the copy; an editable install reads the checkout itself."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = pathlib.Path(self.build_lib, 'internvl_dense', '.mim')
        shutil.rmtree(target, ignore_errors=True)
        for name in mim_files():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


setup(cmdclass={'build_py': BuildWithMim})
