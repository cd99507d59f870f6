"""Registers every type of this project in mmengine's root registries."""

from __future__ import annotations

import contextlib
import importlib
import io

from internvl_dense.openmmlab.loading import register_safe_loader

# Each module registers its types when it is imported.
MODULES = ('backbones', 'pyramid_backbone', 'adapters', 'deform_attn_mmcv', 'necks', 'norms', 'heads', 'segmentors',
           'datasets', 'transforms', 'metrics', 'optimizers', 'schedules', 'hooks', 'strategies', 'runner')


def register() -> None:
    """Imports the modules that register types, and routes every checkpoint through the safe loader."""
    with contextlib.redirect_stdout(io.StringIO()):  # mmseg prints here that an optional package is absent
        importlib.import_module('mmseg.datasets')
    for name in MODULES:
        importlib.import_module(f'internvl_dense.openmmlab.{name}')
    register_safe_loader()
