"""Samples of a data set as training and testing see them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.data.label_sheets import LabelledImage
from internvl_dense.data.rules import format_problems
from internvl_dense.errors import UserError
from internvl_dense.openmmlab.config_checks import data_problems
from internvl_dense.openmmlab.dataset_labels import config_label_policy
from internvl_dense.openmmlab.pipelines import PIPELINE_ERRORS, rgb, step_type
from internvl_dense.openmmlab.summary import build_dataset
from internvl_dense.openmmlab.tasks import DETECTION, task_of

PACK = 'PackSegInputs'


class Browser:
    """Reads samples of one split, evenly spread over it.

    Args:
        config: The resolved config.
        split: 'train', 'val' or 'test'.
        raw: Only load image and label; else run the whole pipeline.
        seed: Of the random augmentation.

    Raises:
        UserError: The data set cannot be listed, or its pipeline loads no labels.
    """

    def __init__(self, config: Config, split: str, raw: bool = False, seed: int = 0) -> None:
        if task_of(config) == DETECTION:
            raise UserError('browse_dataset draws segmentation labels; boxes and masks of this config are drawn by '
                            "mmdetection's tools/analysis_tools/browse_dataset.py, which reads it as it is")
        config = copy.deepcopy(config)
        init_default_scope(config.get('default_scope', 'mmseg'))
        steps = [step_type(step) for step in config[f'{split}_dataloader'].dataset.get('pipeline') or ()]
        if 'LoadAnnotations' not in steps:
            raise UserError(f'{split}_dataloader.dataset.pipeline loads no labels: {", ".join(steps) or "it is empty"}')
        found = data_problems(config, split, check_data=0)
        if any(problem.severity == 'error' for problem in found):
            raise UserError(format_problems(f'the {split} split cannot be shown', found))
        if raw:
            _drop_augmentation(config[f'{split}_dataloader'].dataset)
        self.seed = seed
        self.policy: LabelPolicy = config_label_policy(config, split)
        self.dataset = build_dataset(config, split)
        self.faults: dict[str, str] = {}

    def samples(self, number: int) -> Iterator[LabelledImage]:
        """At most `number` samples; those that cannot be read are noted in `faults` instead (path -> reason)."""
        set_random_seed(self.seed)
        total = len(self.dataset)
        count = min(number, total)
        for index in (position * total // count for position in range(count)):
            path = self.dataset.get_data_info(index)['img_path']
            try:
                packed = self.dataset[index]
            except PIPELINE_ERRORS as error:
                self.faults[path] = str(error) or type(error).__name__
                continue
            yield _sample(Path(path).name, packed)


def _drop_augmentation(dataset: Any) -> None:
    kept = [step for step in dataset.pipeline if step_type(step).startswith('Load')]
    dataset.pipeline = [*kept, {'type': PACK}]


def _sample(name: str, packed: dict[str, Any]) -> LabelledImage:
    ids = packed['data_samples'].gt_sem_seg.data[0].numpy()
    image = packed['inputs'].permute(1, 2, 0).numpy()
    return LabelledImage(name, rgb(image), ids.astype(np.int64))
