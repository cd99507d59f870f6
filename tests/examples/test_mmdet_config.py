"""A config of mmdet with three lines changed, run by mmdet's own tools in two processes."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

import internvl_dense.openmmlab  # noqa: F401
from internvl_dense.safe_load import load_file
from tests import tiny_runs

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = HERE / 'mmdet_mask_rcnn.py'
STRANGERS = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

# What the reader's own data and a small machine ask for; nothing in it knows of this project but the tiny trunk.
OWN = """
_base_ = {config!r}
default_scope = 'mmdet'
classes = {classes!r}
loader = dict(num_workers=0, persistent_workers=False)
data = dict(data_root={root!r}, metainfo=dict(classes=classes))
train_dataloader = dict(**loader, dataset=dict(
    **data, ann_file='annotations/instances_training.json', data_prefix=dict(img='images/training/')))
val_dataloader = dict(**loader, dataset=dict(
    **data, ann_file='annotations/instances_validation.json', data_prefix=dict(img='images/validation/')))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={root!r} + '/annotations/instances_validation.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
custom_hooks = [dict(type='WriteHash')]
env_cfg = dict(dist_cfg=dict(backend='gloo'))
model_wrapper_cfg = dict(device_ids=None)
model = dict(
    backbone=dict(depth=2, embed_dim=16, num_heads=2),
    neck=dict(in_channels=[16] * 4, out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32), mask_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=64, num_classes=5),
        mask_head=dict(in_channels=32, conv_out_channels=16, num_classes=5)),
    train_cfg=dict(rcnn=dict(sampler=dict(num=64)), rpn_proposal=dict(nms_pre=200, max_per_img=100)),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100)))
"""


@pytest.fixture(scope='module')
def mmdet():
    """The folder of configs and tools that mmdet installs."""
    return pathlib.Path(importlib.util.find_spec('mmdet').submodule_search_locations[0]) / '.mim'


@pytest.fixture(scope='module')
def trained(mmdet, tmp_path_factory):
    """mmdet's train tool in two processes; the folder holds the work directory `run`."""
    folder = tmp_path_factory.mktemp('elsewhere')
    data = tiny_runs.make_data(folder)
    annotations = json.loads((data / 'annotations/instances_training.json').read_text())
    classes = [row['name'] for row in annotations['categories']]
    own = folder / 'own.py'
    own.write_text(OWN.format(config=str(CONFIG), classes=tuple(classes), root=str(data)))
    small = [f'{split}_dataloader.dataset.pipeline.{step}.scale=(128,128)'
             for split, step in (('train', 2), ('val', 1))]  # the Resize of each
    process = tiny_runs.python(
        HERE / 'gloo_train.py', folder, mmdet / 'tools' / 'train.py', own, '--launcher', 'pytorch',
        '--work-dir', folder / 'run', '--cfg-options', *small, launcher=tiny_runs.torchrun(2), cwd=folder)
    assert process.returncode == 0, process.stderr[-4000:]
    return folder


def unscoped(value):
    """Without the `_scope_` that mmengine writes into a base of another package."""
    if isinstance(value, dict):
        return {key: unscoped(item) for key, item in value.items() if key != '_scope_'}
    return [unscoped(item) for item in value] if isinstance(value, list) else value


def test_three_lines_differ(mmdet):
    ours, theirs = (unscoped(Config.fromfile(path).to_dict()) for path in (CONFIG, mmdet / 'configs' / STRANGERS))
    assert ours.pop('custom_imports')['imports'] == ['internvl_dense.openmmlab.det']
    ours['model'].pop('backbone'), theirs['model'].pop('backbone')
    ours['model']['neck'].pop('in_channels'), theirs['model']['neck'].pop('in_channels')
    assert ours == theirs


def test_strides_are_those_of_the_strangers_heads():
    model = Config.fromfile(CONFIG).model
    info = MODELS.build({**model.backbone}).feature_info
    assert list(info.strides) == model.roi_head.bbox_roi_extractor.featmap_strides
    assert list(info.strides) == model.rpn_head.anchor_generator.strides[:4]
    assert list(info.channels) == model.neck.in_channels


def test_both_processes_hold_the_same_weights(trained):
    first, second = (json.loads((trained / f'rank_{rank}.json').read_text()) for rank in range(2))
    assert first == second
    assert first['processes'] == 2 and first['iterations'] == 2  # 8 images, 2 in each of 2 processes


def test_losses_and_metrics_are_logged(trained):
    rows = tiny_runs.scalars(trained / 'run')
    losses = [row for row in rows if 'loss' in row]
    assert [row['iter'] for row in losses] == [1, 2]
    assert all(0 < row[f'loss_{part}'] < 100 for row in losses for part in ('rpn_cls', 'cls', 'bbox', 'mask'))
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(rows[-1])


def test_the_checkpoint_has_the_published_keys(trained):
    keys = set(load_file(trained / 'run' / 'epoch_1.pth')['state_dict'])
    assert {'backbone.blocks.0.attn.qkv.weight', 'backbone.up1.0.weight', 'neck.lateral_convs.0.conv.weight'} <= keys
