"""A few lines on what a run is going to do, before it does it."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch import nn

from internvl_dense.openmmlab.processes import planned_processes


def count_parameters(model: nn.Module, without: tuple[str, ...] = ('auxiliary_head.',)) -> tuple[int, int]:
    """Total and trainable parameters.

    Args:
        model: Any module, meta tensors included.
        without: Prefixes that are left out; the auxiliary head serves training only and published counts omit it.
    """
    named = [(name, p) for name, p in model.named_parameters() if not name.startswith(without)]
    return sum(p.numel() for _, p in named), sum(p.numel() for _, p in named if p.requires_grad)


def build_dataset(config: Config, split: str) -> Any:
    """The data set of 'train', 'val' or 'test', fully listed."""
    init_default_scope(config.get('default_scope', 'mmseg'))
    dataset = DATASETS.build(config[f'{split}_dataloader'].dataset)
    dataset.full_init()
    return dataset


def describe_run(config: Config) -> str:
    """Model, data and schedule of a training run, as text."""
    from internvl_dense.openmmlab.launch import build_model_on_meta

    total, trainable = count_parameters(build_model_on_meta(config), without=())
    images = len(build_dataset(config, 'train'))
    _, processes = planned_processes(config.get('launcher', 'none'))
    batch = config.train_dataloader.batch_size * processes
    accumulated = batch * config.optim_wrapper.get('accumulative_counts', 1)
    iterations = config.train_cfg.get('max_iters')
    rows = [
        ('work dir', config.work_dir),
        ('backbone', f'{config.model.backbone.get("variant")}, weights {config.model.backbone.get("weights")}'),
        ('parameters', f'{trainable:,} trainable of {total:,}'),
        ('training images', f'{images:,}'),
        ('batch', f'{accumulated} images in an optimizer step'),
    ]
    if iterations:
        rows.append(('schedule', f'{iterations:,} iterations = {iterations * batch / max(images, 1):.1f} epochs'))
    return '\n'.join(f'{name:>16}: {value}' for name, value in rows)
