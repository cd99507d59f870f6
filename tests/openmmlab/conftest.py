"""A few sample pictures, and the demo config made small enough for a test."""

from __future__ import annotations

import itertools
import pathlib
from argparse import Namespace
from collections.abc import Callable

import pytest
from mmengine.config import Config

from internvl_dense.data.sample import make_sample_dataset
from internvl_dense.openmmlab.configs import load_config

DEMO = 'demo/upernet_internvit_debug_demo'
_numbers = itertools.count()


@pytest.fixture(scope='session')
def sample_root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """8 training and 4 validation pictures of 140 px."""
    return make_sample_dataset(tmp_path_factory.mktemp('sample') / 'shapes', train=8, val=4)


@pytest.fixture
def demo_config(sample_root: pathlib.Path, tmp_path: pathlib.Path) -> Callable[..., Config]:
    """Returns the demo config on the sample pictures with options as on a command line; one block, no workers."""

    def load(*options: str, config: str = DEMO) -> Config:
        loaded = load_config(Namespace(config=config, work_dir=str(tmp_path / 'work'), cfg_options=[
            'model.backbone.embed_dim=16', 'model.backbone.num_heads=2', 'model.decode_head.channels=8',
            'train_dataloader.batch_size=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2', *options]))
        for split in ('train', 'val', 'test'):
            loader = loaded[f'{split}_dataloader']
            loader.dataset.data_root = str(sample_root)
            loader.num_workers, loader.persistent_workers = 0, False
        loaded.default_hooks.checkpoint.interval = 2
        loaded.visualizer.vis_backends = []
        loaded.experiment_name = f'test_{next(_numbers)}'  # mmengine keeps loggers by name
        return loaded

    return load
