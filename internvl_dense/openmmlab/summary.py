"""A few lines on what a run is going to do, before it does it."""

from __future__ import annotations

import math
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn

from internvl_dense.backbones.internvit import InternViT
from internvl_dense.backbones.locate import PUBLISHED, RANDOM
from internvl_dense.openmmlab.processes import planned_processes
from internvl_dense.openmmlab.recipe import recipe_changes
from internvl_dense.training.numerics import FAST


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


def first_line(config: Config) -> str:
    """Where the weights of a run come from and by which numerics it goes, in one line."""
    checkpoint = config.get('resume') or config.get('load_from')
    model = config.get('model') or {}
    model = model.get('module', model)  # inside test-time augmentation
    backbone = model.get('backbone') or {}
    cls = MODELS.get(backbone['type']) if 'type' in backbone else None
    own = isinstance(cls, type) and issubclass(cls, InternViT)
    weights = backbone.get('weights', PUBLISHED if own else 'as model.backbone.init_cfg says')
    source = 'RANDOM' if weights == RANDOM else weights
    if isinstance(checkpoint, str):
        source = f'checkpoint {checkpoint}'
    return f'weights: {source}; numerics: {model.get("numerics", FAST.name)}'


def describe_run(config: Config) -> str:
    """Model, data and schedule of a training run, as text."""
    from internvl_dense.openmmlab.launch import build_model_on_meta

    total, trainable = count_parameters(build_model_on_meta(config), without=())
    images = len(build_dataset(config, 'train'))
    rows = [
        ('work dir', config.work_dir),
        ('backbone', config.model.backbone.get('variant')),
        ('parameters', f'{trainable:,} trainable of {total:,}'),
        ('training images', f'{images:,}'),
        *_schedule_rows(config, images),
        ('changed', ', '.join(recipe_changes(config))),
    ]
    return '\n'.join(f'{name:>16}: {value}' for name, value in rows if value)


def _schedule_rows(config: Config, images: int) -> list[tuple[str, str]]:
    """Batch and length of the run, and what they are in the recipe."""
    _, processes = planned_processes(config.get('launcher', 'none'))
    batch = config.train_dataloader.batch_size * processes
    step = batch * config.optim_wrapper.get('accumulative_counts', 1)
    rows = [('batch', f'{step} images in an optimizer step, {batch} in a forward pass over all processes')]
    iterations = config.train_cfg.get('max_iters')
    if iterations:
        epoch = math.ceil(images / batch)
        rows.append(('schedule', f'{iterations:,} iterations of {batch} = {iterations * batch / max(images, 1):.1f} '
                                 f'epochs of {epoch:,} iterations'))
    rows += _against_recipe(config, batch, step)
    return rows


def _against_recipe(config: Config, batch: int, step: int) -> list[tuple[str, str]]:
    """What another batch than the recipe's changes."""
    recipe = (config.get('auto_scale_lr') or {}).get('base_batch_size')
    rows = []
    if recipe and recipe != step:
        lr = config.optim_wrapper.optimizer.lr
        rows.append(('recipe', f'{recipe} images in an optimizer step; lr stays {lr:g}, in proportion to the images it '
                               f'would be {lr * step / recipe:.3g}'))
    norm = (config.model.get('decode_head') or {}).get('norm_cfg', {}).get('type')
    if recipe and norm in ('BN', 'SyncBN') and batch != recipe:
        rows.append(('batch norm', f'normalises over {batch} images, in the recipe over {recipe}'))
    return rows
