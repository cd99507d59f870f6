"""Fills in what a config leaves to the data: classes from classes.txt, iterations from epochs.

A completed config spells everything out, so any OpenMMLab tool can run it. Where the data are absent the config stays
as it is, and the checks before a run say what is missing.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from internvl_dense.data.class_names import FILE, read_class_names
from internvl_dense.data.label_policy import default_palette
from internvl_dense.errors import UserError
from internvl_dense.openmmlab.processes import planned_processes

SPLITS = ('train', 'val', 'test')
HEADS = ('decode_head', 'auxiliary_head')


def complete(config: Config) -> None:
    """Completes a config in place; doing it twice changes nothing."""
    if 'model' in config:
        _complete_classes(config)
    if config.get('epochs') and config.get('train_dataloader'):
        _complete_schedule(config)


def set_data_root(config: Config, root: str) -> None:
    """Points every split at another folder of the same layout.

    Raises:
        UserError: A data set of the config has no single folder.
    """
    old = config.get('data_root') or next((dataset.get('data_root') for dataset in _datasets(config)), None)
    for dataset in _datasets(config):
        if 'data_root' not in dataset:
            raise UserError(f'--data-root: the data set {dataset.get("type")} of this config has no data_root; name '
                            'the folders of its parts with --cfg-options')
        dataset.data_root = root
        if isinstance(dataset.get('metainfo', {}).get('classes'), str):
            dataset.metainfo.classes = str(pathlib.Path(root, FILE))
    for evaluator in _evaluators(config):  # which read the instances from a file of their own
        if evaluator.get('ann_file'):
            evaluator.ann_file = str(pathlib.Path(root, os.path.relpath(evaluator.ann_file, old)))
    if 'data_root' in config:
        config.data_root = root
    for place in (config, *_heads(config)):
        if isinstance(place.get('num_classes'), str):
            place.num_classes = str(pathlib.Path(root, FILE))


def _datasets(config: Config) -> Iterator[Any]:
    for split in SPLITS:
        loader = config.get(f'{split}_dataloader')
        if loader:
            yield loader.dataset


def _evaluators(config: Config) -> Iterator[Any]:
    for split in SPLITS[1:]:
        found = config.get(f'{split}_evaluator')
        yield from found if isinstance(found, (list, tuple)) else [found] if found else []


def _heads(config: Config) -> Iterator[Any]:
    for name in HEADS:
        found = config.model.get(name)
        yield from found if isinstance(found, (list, tuple)) else [found] if found else []


def _complete_classes(config: Config) -> None:
    for dataset in _datasets(config):
        path = dataset.get('metainfo', {}).get('classes')
        if isinstance(path, str) and pathlib.Path(path).is_file():
            names = read_class_names(path)
            dataset.metainfo = {'classes': names, 'palette': [list(colour) for colour in default_palette(len(names))]}
    for place in (config, *_heads(config)):
        path = place.get('num_classes')
        if isinstance(path, str) and pathlib.Path(path).is_file():
            place.num_classes = len(read_class_names(path))


def iterations_per_epoch(config: Config) -> int | None:
    """Training iterations that see every image once on average; None while the images are absent."""
    images = count_images(config)
    if not images:
        return None
    _, processes = planned_processes(config.get('launcher') or 'none')
    return math.ceil(images / (config.train_dataloader.batch_size * processes))


def count_images(config: Config) -> int:
    """Training images of a config; 0 while they are absent."""
    if isinstance(config.train_dataloader.dataset.get('metainfo', {}).get('classes'), str):
        return 0  # mmengine would take the path of an absent file for the names
    init_default_scope(config.get('default_scope', 'mmseg'))
    dataset = DATASETS.build({**config.train_dataloader.dataset, 'lazy_init': True})
    folder = pathlib.Path(dataset.data_prefix.get('img_path') or dataset.data_prefix.get('img') or '')
    if not folder.is_dir() or (dataset.ann_file and not pathlib.Path(dataset.ann_file).is_file()):
        return 0
    dataset.full_init()
    return len(dataset)


def _complete_schedule(config: Config) -> None:
    """Iterations of training, warm-up, validation and saving, where the config has None."""
    steps = iterations_per_epoch(config)
    if steps is None:
        return
    accumulated = config.optim_wrapper.get('accumulative_counts', 1)
    epochs = config.epochs
    if config.train_cfg.get('max_iters') is None:
        config.train_cfg.max_iters = accumulated * math.ceil(epochs.total * steps / accumulated)
    total = config.train_cfg.max_iters
    if config.train_cfg.get('val_interval') is None:
        config.train_cfg.val_interval = min(total, epochs.val_every * steps)
    for schedule in config.param_scheduler:
        if schedule.get('max_iters') is None:
            schedule.max_iters = total
        if schedule.get('warmup_iters') is None:
            schedule.warmup_iters = round(epochs.warmup * total)
    checkpoint = config.default_hooks.checkpoint
    if checkpoint.get('interval') is None:
        checkpoint.interval = config.train_cfg.val_interval
