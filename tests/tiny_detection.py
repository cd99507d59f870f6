"""Options that bring a detection config down to a size that trains in seconds, on the sample data's instances."""

from __future__ import annotations

import pathlib
import uuid
from typing import Any

from internvl_dense.data.sample import SAMPLE_POLICY

DEMO = 'demo/mask_rcnn_internvit_debug_demo'
CLASSES = SAMPLE_POLICY.classes[1:]
WORDS = [name for name in CLASSES if ' ' not in name]  # a list on the command line loses its blanks
SPLITS = {'train': 'training', 'val': 'validation', 'test': 'validation'}
TRUNK = {'depth': 4, 'embed_dim': 16, 'num_heads': 2, 'weights': 'random'}
# A few regions and queries; the full rate from the start, so that every iteration shows in the loss.
RUN = {
    'train_dataloader.batch_size': 2, 'param_scheduler.0.warmup_iters': 0, 'train_cfg.max_iters': 4,
    'train_cfg.val_interval': 4, 'default_hooks.checkpoint.interval': 4, 'default_hooks.logger.interval': 1,
}
TWO_STAGE = {
    'neck.out_channels': 8, 'rpn_head.feat_channels': 8, 'train_cfg.rpn_proposal.nms_pre': 50,
    'train_cfg.rpn_proposal.max_per_img': 20, 'test_cfg.rpn.nms_pre': 50, 'test_cfg.rpn.max_per_img': 20,
    'test_cfg.rcnn.max_per_img': 10, 'roi_head.mask_head.conv_out_channels': 8,
}
ONE_BOX_HEAD = {'roi_head.bbox_head.fc_out_channels': 32, 'train_cfg.rcnn.sampler.num': 16}


def options(data: pathlib.Path, model: dict[str, Any], pipelines: bool = True, **changes: Any) -> list[str]:
    """`--cfg-options` of a tiny run.

    Args:
        data: A folder of `tiny_runs.make_data`.
        model: Changes below `model`.
        pipelines: The config is one of COCO's, whose images are larger and lie elsewhere.
        changes: Others, with `__` for dots.
    """
    name = uuid.uuid4().hex
    values: dict[str, Any] = {**RUN, 'experiment_name': name, 'visualizer.name': name}
    values.update({f'model.backbone.{key}': value for key, value in TRUNK.items()})
    values.update({f'model.{key}': value for key, value in model.items()})
    for split, folder in SPLITS.items():
        loader = f'{split}_dataloader'
        values.update({f'{loader}.num_workers': 0, f'{loader}.persistent_workers': False,
                       f'{loader}.dataset.data_root': data})
        if pipelines:
            values.update(_coco_to_sample(loader, folder))
    for split in ('val', 'test'):
        values[f'{split}_evaluator.ann_file'] = data / 'annotations' / f'instances_{SPLITS[split]}.json'
    if pipelines:
        values['model.num_classes'] = len(WORDS)
    values.update({key.replace('__', '.'): value for key, value in changes.items()})
    return ['--cfg-options', *(f'{key}={value}' for key, value in values.items())]


def _coco_to_sample(loader: str, folder: str) -> dict[str, Any]:
    return {
        f'{loader}.dataset.ann_file': f'annotations/instances_{folder}.json',
        f'{loader}.dataset.data_prefix.img': f'images/{folder}/',
        f'{loader}.dataset.metainfo.classes': '(' + ','.join(WORDS) + ')',
    }
