"""Mistakes in a detection config and its COCO files that can be known before training."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from internvl_dense.data.coco_checks import check_coco_splits
from internvl_dense.data.coco_index import CocoIndex
from internvl_dense.data.rules import Problem
from internvl_dense.openmmlab.pipelines import step_type
from internvl_dense.openmmlab.processes import planned_processes

CLASSES = 'num_classes'


def instance_problems(config: Config, splits: Sequence[str], check_data: int | None) -> list[Problem]:
    """Files, boxes and masks of the splits, against the classes of the heads.

    The json files are read by the first process only: those of COCO take half a minute.

    Args:
        config: The resolved config.
        splits: Of 'train', 'val' and 'test'.
        check_data: Images to read for each split; None reads all, 0 only looks at the json files and at names.
    """
    found: list[Problem] = []
    indexes: dict[tuple[Any, ...], CocoIndex] = {}
    for split in splits:
        try:
            dataset = DATASETS.build({**config[f'{split}_dataloader'].dataset, 'lazy_init': True})
        except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
            found.append(_error('dataset', f'{split}_dataloader.dataset cannot be built: {error}'))
            continue
        found += _class_problems(config, split, tuple(dataset.metainfo.get('classes') or ()))
        if not dataset.ann_file:
            found.append(_error('dataset', f'{split}_dataloader.dataset names no ann_file'))
            continue
        index = _index(config, dataset, split, check_data)
        indexes.setdefault((index.ann_file, index.image_folder), index)
    if planned_processes(config.get('launcher', 'none'))[0] == 0:
        found += check_coco_splits(list(indexes.values()))
    return found


def class_counts(model: Any, place: str = 'model') -> Iterator[tuple[str, int]]:
    """Every `num_classes` in the config of a detector, with its place."""
    for key, value in model.items():
        if key == CLASSES and isinstance(value, int):
            yield place, value
        elif isinstance(value, dict):
            if key != 'rpn_head':  # tells objects from background, whatever their class
                yield from class_counts(value, f'{place}.{key}')
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                if isinstance(item, dict):
                    yield from class_counts(item, f'{place}.{key}[{i}]')


def _class_problems(config: Config, split: str, classes: tuple[str, ...]) -> Iterator[Problem]:
    shown = ', '.join(classes[:12]) + (' ...' if len(classes) > 12 else '')
    for place, wanted in class_counts(config.model):
        if wanted != len(classes):
            yield _error(CLASSES, f'{place} has num_classes={wanted}, {split} has {len(classes)} classes: {shown}')


def _index(config: Config, dataset: Any, split: str, check_data: int | None) -> CocoIndex:
    steps = config[f'{split}_dataloader'].dataset.get('pipeline') or ()
    masks = any(step_type(step) == 'LoadAnnotations' and step.get('with_mask') for step in steps)
    folder = pathlib.Path(dataset.data_prefix.get('img') or '.')
    return CocoIndex(pathlib.Path(dataset.ann_file), folder, tuple(dataset.metainfo['classes']), masks, check_data)


def _error(rule: str, message: str) -> Problem:
    return Problem(rule, 'error', None, message)
