"""Runs of the commands at a size that takes a second: as a user starts them, or within this process."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import uuid
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from internvl_dense.commands import test as test_command
from internvl_dense.commands import train as train_command
from internvl_dense.data.sample import make_sample_dataset
from internvl_dense.errors import run
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.strict_load import unwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = 'demo/upernet_internvit_debug_demo'
LINEAR = 'demo/linear_probing_internvit_debug_demo'
TINY_TRUNK = {'depth': 4, 'embed_dim': 16, 'num_heads': 2}
# The full rate from the start, so that every iteration shows in the loss, and loaders without worker processes.
BASE = {
    'train_dataloader.batch_size': 2, 'model.decode_head.channels': 8,
    **{f'model.backbone.{key}': value for key, value in TINY_TRUNK.items()},
    'param_scheduler.0.warmup_iters': 0, 'train_cfg.max_iters': 4, 'train_cfg.val_interval': 2,
    'default_hooks.checkpoint.interval': 2, 'default_hooks.logger.interval': 1,
    **{f'{split}_dataloader.{key}': value for split in ('train', 'val', 'test')
       for key, value in (('num_workers', 0), ('persistent_workers', False))},
}
# What draws random numbers while a model trains, switched off: then a resumed run repeats an uninterrupted one.
STILL = {'train_dataloader.dataset.pipeline.2.prob': 0.0, 'model.decode_head.dropout_ratio': 0,
         'model.auxiliary_head.dropout_ratio': 0}


def make_data(folder: pathlib.Path) -> pathlib.Path:
    """8 training images and 5 for validation: an odd number, so that two processes get unequal shares."""
    return pathlib.Path(make_sample_dataset(folder / 'data' / 'demo', train=8, val=5))


def options(data: pathlib.Path, changes: dict[str, Any] | None = None) -> list[str]:
    """`--cfg-options` of a tiny run; a change to None drops an option.

    mmengine keeps loggers and visualizers by name for the life of a process, so each run gets names of its own.
    """
    name = uuid.uuid4().hex
    own = {'experiment_name': name, 'visualizer.name': name,
           **{f'{split}_dataloader.dataset.data_root': data for split in ('train', 'val', 'test')}}
    values = {**BASE, **own, **(changes or {})}
    return ['--cfg-options', *(f'{key}={value}' for key, value in values.items() if value is not None)]


def train(config: Any, work_dir: pathlib.Path, *arguments: Any, data: pathlib.Path, **changes: Any) -> int:
    """The train command in this process; returns its exit code. Dots in names of changes are written as `__`."""
    return _call(train_command.main, [config, '--work-dir', work_dir, *arguments, *options(data, _dotted(changes))])


def train_detector(config: Any, work_dir: pathlib.Path, options: Sequence[Any], *arguments: Any) -> int:
    """The train command in this process with the options of `tiny_detection`; returns its exit code."""
    return _call(train_command.main, [config, '--work-dir', work_dir, *arguments, *options])


def test(config: Any, checkpoint: Any, work_dir: pathlib.Path, *arguments: Any, data: pathlib.Path,
         **changes: Any) -> int:
    """The test command in this process; returns its exit code."""
    argv = [config, checkpoint, '--work-dir', work_dir, *arguments, *options(data, _dotted(changes))]
    return _call(test_command.main, argv)


test.__test__ = False  # type: ignore[attr-defined]


def tool(name: str, *arguments: Any, launcher: Sequence[Any] = (), cwd: pathlib.Path, timeout: float = 300
         ) -> subprocess.CompletedProcess:
    """A file of `tools/` as a user starts it, in a process of its own."""
    return python(ROOT / 'tools' / f'{name}.py', *arguments, launcher=launcher, cwd=cwd, timeout=timeout)


def python(script: pathlib.Path, *arguments: Any, launcher: Sequence[Any] = (), cwd: pathlib.Path, timeout: float = 300
           ) -> subprocess.CompletedProcess:
    """A script in a process of its own, or in several where a launcher module comes first."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, *map(str, launcher), str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def torchrun(processes: int) -> list[str]:
    """What starts several processes that meet at a free port of this machine."""
    return ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes)]


def tiny_config(config: Any, work_dir: pathlib.Path, data: pathlib.Path, launcher: str = 'none',
                **changes: Any) -> Config:
    """The config of a tiny run, resolved as the commands do it."""
    args = Namespace(config=str(config), work_dir=work_dir, launcher=launcher,
                     cfg_options=options(data, _dotted(changes))[1:])
    return load_config(args)


def build_model(config: Config) -> Any:
    """The model of a config with its initial weights."""
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    model.init_weights()
    return model


def batch(images: torch.Tensor, labels: torch.Tensor) -> dict[str, list[Any]]:
    """What a loader of mmseg would give: images (B, 3, H, W) and labels (B, 1, H, W)."""
    samples = [SegDataSample(metainfo={'img_shape': image.shape[1:]}) for image in images]
    for sample, label in zip(samples, labels, strict=True):
        sample.gt_sem_seg = PixelData(data=label)
    return {'inputs': list(images), 'data_samples': samples}


def sgd_step(run: Any, state: dict[str, torch.Tensor], images: torch.Tensor, labels: torch.Tensor
             ) -> torch.nn.Module:
    """The model of a runner after one plain step from a given state."""
    run.strategy.prepare(run.model)
    model = run.strategy.model
    unwrap(model).load_state_dict(state)
    model.train()
    # No momentum and no adaptation: the result depends on the gradient alone.
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5))
    model.train_step(batch(images, labels), wrapper)
    return unwrap(model)


def scalars(work_dir: pathlib.Path) -> list[dict[str, Any]]:
    """What the newest run in a work directory logged, in order."""
    newest = max(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for line in newest.read_text().splitlines()]


def losses(work_dir: pathlib.Path) -> dict[int, float]:
    """Logged loss by iteration of the newest run."""
    return {row['step']: row['loss'] for row in scalars(work_dir) if 'loss' in row}


def _dotted(changes: dict[str, Any]) -> dict[str, Any]:
    return {key.replace('__', '.'): value for key, value in changes.items()}


def _call(main: Any, argv: Sequence[Any]) -> int:
    return run(lambda: main([str(word) for word in argv]))
