"""The ways in which OpenMMLab code loads a checkpoint, on models of one layer."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import STRATEGIES
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from torch import nn

import internvl_dense.openmmlab  # noqa: F401 - registers DenseSingle
from internvl_dense.safe_load import load_file

ITERATIONS = 3


class Tiny(BaseModel):
    """Smallest model a runner trains: one layer and its loss."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor') -> Any:
        return {'loss': self.layer(inputs).square().mean()} if mode == 'loss' else self.layer(inputs)


class TinyBackbone(BaseModule):
    """One convolution, four channels."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.layer(x),)


def build_runner(work_dir: pathlib.Path, iterations: int = ITERATIONS, **options: Any) -> Runner:
    """mmengine's own runner with optimizer, schedule and logged values."""
    torch.manual_seed(0)
    data = [{'inputs': torch.tensor([1.0, float(i)])} for i in range(4)]
    return Runner(
        model=Tiny(), work_dir=str(work_dir), experiment_name=f'{work_dir.name}{len(os.listdir(work_dir))}',
        train_dataloader={'dataset': data, 'batch_size': 2, 'collate_fn': {'type': 'default_collate'},
                          'sampler': {'type': 'DefaultSampler', 'shuffle': False}},
        train_cfg={'by_epoch': False, 'max_iters': iterations},
        optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': 0.1}},
        param_scheduler={'type': 'LinearLR', 'start_factor': 0.5, 'by_epoch': False, 'end': 10},
        default_hooks={'logger': {'type': 'LoggerHook', 'interval': 1},
                       'checkpoint': {'type': 'CheckpointHook', 'interval': 1, 'by_epoch': False}},
        log_level='ERROR', **options)


def segmentor_config() -> Config:
    model = {
        'type': 'EncoderDecoder', 'data_preprocessor': {'type': 'SegDataPreProcessor'},
        'backbone': {'type': TinyBackbone},
        'decode_head': {'type': 'FCNHead', 'in_channels': 4, 'channels': 4, 'num_convs': 0, 'concat_input': False,
                        'num_classes': 3, 'norm_cfg': {'type': 'BN'},
                        'loss_decode': {'type': 'CrossEntropyLoss', 'avg_non_ignore': True}},
        'test_cfg': {'mode': 'whole'},
    }
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'PackSegInputs'}]
    return Config({'model': model, 'default_scope': 'mmseg', 'test_pipeline': pipeline,
                   'test_dataloader': {'dataset': {'pipeline': pipeline}},
                   'visualizer': {'type': 'SegLocalVisualizer', 'vis_backends': []}})


def by_runner(resume: bool) -> Callable[[str, pathlib.Path], Any]:
    def load(path: str, work_dir: pathlib.Path) -> Runner:
        runner = build_runner(work_dir, load_from=path, resume=resume)
        runner.train()  # loads first
        return runner

    return load


def by_strategy(name: str) -> Callable[[str, pathlib.Path], Any]:
    def load(path: str, work_dir: pathlib.Path) -> Any:
        strategy = STRATEGIES.get(name)(work_dir=str(work_dir), experiment_name=work_dir.name)
        strategy.model = Tiny()
        return strategy.load_checkpoint(path)

    return load


def by_pretrained(path: str, work_dir: pathlib.Path) -> Any:
    model = Tiny(init_cfg={'type': 'Pretrained', 'checkpoint': path})
    model.init_weights()
    return model


def by_pretrained_prefix(path: str, work_dir: pathlib.Path) -> Any:
    model = Tiny(init_cfg={'type': 'Pretrained', 'checkpoint': path, 'prefix': 'backbone.'})
    model.init_weights()
    return model


def by_init_model(path: str, work_dir: pathlib.Path) -> Any:
    from mmseg.apis import init_model

    return init_model(segmentor_config(), path, device='cpu')


def by_inferencer(path: str, work_dir: pathlib.Path) -> Any:
    from mmseg.apis import MMSegInferencer

    return MMSegInferencer(segmentor_config(), path, device='cpu')


ENTRIES: dict[str, Callable[[str, pathlib.Path], Any]] = {
    'load_file': lambda path, _: load_file(path),
    'CheckpointLoader': lambda path, _: CheckpointLoader.load_checkpoint(path, map_location='cpu'),
    'load_checkpoint': lambda path, _: load_checkpoint(Tiny(), path),
    'Runner(load_from)': by_runner(resume=False),
    'Runner(resume)': by_runner(resume=True),
    'SingleDeviceStrategy': by_strategy('SingleDeviceStrategy'),
    'DenseSingle': by_strategy('DenseSingle'),
    'Pretrained': by_pretrained,
    'Pretrained(prefix)': by_pretrained_prefix,
    'init_model': by_init_model,
    'MMSegInferencer': by_inferencer,
}
