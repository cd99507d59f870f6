"""Mask2Former's head on InternViT in miniature: mmdet's parts inside a segmentation run, as a user starts it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests import tiny_runs

BASES = ('models/mask2former', 'datasets/demo', 'schedules/adamw_demo', 'runtime')
CONFIG = """
_base_ = [{bases}]
custom_imports = dict(imports=['internvl_dense.openmmlab.det'], allow_failed_imports=False)
attention = dict(embed_dims=16, num_heads=2)
feed_forward = dict(embed_dims=16, feedforward_channels=16)
model = dict(
    backbone=dict(variant='internvit_debug', weights='random', depth=4, embed_dim=16, num_heads=2),
    decode_head=dict(
        num_classes=6, feat_channels=16, out_channels=16, num_queries=8, positional_encoding=dict(num_feats=8),
        loss_cls=dict(class_weight=[1.0] * 6 + [0.1]), train_cfg=dict(num_points=64),
        pixel_decoder=dict(
            norm_cfg=dict(num_groups=4), positional_encoding=dict(num_feats=8),
            encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=feed_forward))),
        transformer_decoder=dict(
            num_layers=2, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=feed_forward))),
    data_preprocessor=dict(size=(140, 140)), test_cfg=dict(crop_size=(112, 112), stride=(70, 70)))
"""
NOT_THERE = ('model.decode_head.channels', 'model.backbone.depth', 'model.backbone.embed_dim',
             'model.backbone.num_heads')


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """tools/train.py and tools/test.py; the folder."""
    folder = tmp_path_factory.mktemp('mask2former')
    config = folder / 'mask2former.py'
    bases = ', '.join(repr(str(tiny_runs.ROOT / 'configs' / '_base_' / f'{name}.py')) for name in BASES)
    config.write_text(CONFIG.format(bases=bases))
    options = tiny_runs.options(data, dict.fromkeys(NOT_THERE))
    process = tiny_runs.tool('train', config, '--amp', '--work-dir', folder / 'run', *options, cwd=folder)
    assert process.returncode == 0, process.stderr
    process = tiny_runs.tool('test', config, folder / 'run' / 'iter_4.pth', '--work-dir', folder / 'tested', *options,
                             cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder


def test_every_loss_of_every_layer_is_finite(trained):
    rows = [row for row in tiny_runs.scalars(trained / 'run') if 'loss' in row]
    assert [row['step'] for row in rows] == [1, 2, 3, 4]
    names = {name for name in rows[0] if name.startswith('decode.')}
    assert {'decode.loss_cls', 'decode.loss_mask', 'decode.loss_dice', 'decode.d0.loss_mask'} <= names
    assert all(np.isfinite(row[name]) for row in rows for name in names)


def test_sliding_windows_and_metric_work_with_its_logits(trained):
    metrics = json.loads((trained / 'tested' / 'metrics.json').read_text())
    validated = [row for row in tiny_runs.scalars(trained / 'run') if 'mIoU' in row][-1]
    assert 100 * metrics['mIoU'] == pytest.approx(validated['mIoU'], abs=5e-5)
