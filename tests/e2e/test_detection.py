"""Every detector in miniature, through the tools: training, testing, and what they write."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from internvl_dense.safe_load import load_file
from tests import tiny_detection, tiny_runs

SIDE = '(140, 140)'
RESIZE = {'train_dataloader.dataset.pipeline.2.scale': SIDE, 'val_dataloader.dataset.pipeline.1.scale': SIDE,
          'test_dataloader.dataset.pipeline.1.scale': SIDE}
WINDOWS = {'backbone.window_size': 3, 'backbone.dtype': 'fp32'}
TRANSFORMER = {
    **{f'{part}.num_layers': 1 for part in ('encoder', 'decoder')}, 'num_queries': 20, 'test_cfg.max_per_img': 10,
    'dn_cfg.group_cfg.num_dn_queries': 4,
}
# A config, what makes its model small, and what makes its images small.
MINIATURES = {
    'coco/mask_rcnn_internvit_6b_224px_coco': (
        {**tiny_detection.TWO_STAGE, **tiny_detection.ONE_BOX_HEAD, **WINDOWS}, RESIZE),
    'coco/cascade_mask_rcnn_internvit_6b_224px_coco': (
        {**tiny_detection.TWO_STAGE, **WINDOWS,
         **{f'roi_head.bbox_head.{stage}.fc_out_channels': 32 for stage in range(3)},
         **{f'train_cfg.rcnn.{stage}.sampler.num': 16 for stage in range(3)}}, RESIZE),
    'coco/vitdet_internvit_6b_224px_coco': (
        {**tiny_detection.TWO_STAGE, **tiny_detection.ONE_BOX_HEAD, 'backbone.window_size': 3,
         'backbone.image_size': 144, 'roi_head.bbox_head.conv_out_channels': 8},
        {'train_dataloader.dataset.pipeline.3.scale': SIDE, 'train_dataloader.dataset.pipeline.4.crop_size': SIDE,
         'train_dataloader.dataset.pipeline.6.size': SIDE,
         **{f'{split}_dataloader.dataset.pipeline.1.scale': SIDE for split in ('val', 'test')},
         **{f'{split}_dataloader.dataset.pipeline.2.size': SIDE for split in ('val', 'test')}}),
    'coco/dino_internvit_6b_224px_coco': ({**TRANSFORMER, **WINDOWS}, RESIZE),
}


@pytest.mark.parametrize('config', MINIATURES)
def test_detector_trains_and_tests(config, data, tmp_path):
    model, images = MINIATURES[config]
    assert tiny_runs.train_detector(config, tmp_path, tiny_detection.options(data, model, **images)) == 0
    rows = [row for row in tiny_runs.scalars(tmp_path) if 'loss' in row]
    assert [row['step'] for row in rows] == [1, 2, 3, 4]
    assert all(np.isfinite(row['loss']) for row in rows)
    scores = next(row for row in tiny_runs.scalars(tmp_path) if 'coco/bbox_mAP' in row)
    assert 0 <= scores['coco/bbox_mAP'] <= 1


@pytest.fixture(scope='module')
def demo(data, tmp_path_factory):
    """tools/train.py and tools/test.py on a small version of the demo detector; folder, options and outputs."""
    folder = tmp_path_factory.mktemp('detector')
    options = tiny_detection.options(
        data, {**tiny_detection.TWO_STAGE, **tiny_detection.ONE_BOX_HEAD, 'neck.norm_cfg.num_groups': 2},
        pipelines=False)
    trained = tiny_runs.tool('train', tiny_detection.DEMO, '--work-dir', folder / 'run', '--amp', *options, cwd=folder)
    assert trained.returncode == 0, trained.stderr
    tested = tiny_runs.tool(
        'test', tiny_detection.DEMO, folder / 'run' / 'iter_4.pth', '--work-dir', folder / 'tested', '--out',
        folder / 'out', '--show-dir', folder / 'pictures', *options, cwd=folder)
    assert tested.returncode == 0, tested.stderr
    return folder, options, tested


def test_test_repeats_the_last_validation(demo):
    folder, _, _ = demo
    validated = next(row for row in tiny_runs.scalars(folder / 'run') if 'coco/bbox_mAP' in row)
    metrics = json.loads((folder / 'tested' / 'metrics.json').read_text())
    assert metrics['run']['checkpoint'] == str(folder / 'run' / 'iter_4.pth')
    for kind in ('bbox', 'segm'):
        assert metrics[kind]['mAP'] == pytest.approx(validated[f'coco/{kind}_mAP'], abs=5e-5)


def test_results_are_coco_json_and_pictures(demo, data):
    folder, _, _ = demo
    images = sorted((data / 'images' / 'validation').glob('*.jpg'))
    boxes = json.loads((folder / 'out' / 'results.bbox.json').read_text())
    assert {row['image_id'] for row in boxes} <= set(range(1, len(images) + 1))
    assert {'bbox', 'score', 'category_id'} <= boxes[0].keys()
    assert len(json.loads((folder / 'out' / 'results.segm.json').read_text())) == len(boxes)
    assert sorted(path.name for path in (folder / 'pictures').rglob('*.jpg')) == [path.name for path in images]


def test_checkpoint_knows_its_classes_and_resumes(demo):
    folder, options, _ = demo
    meta = load_file(folder / 'run' / 'iter_4.pth')['meta']['internvl_dense']
    assert tuple(meta['classes']) == tiny_detection.CLASSES
    assert meta['variant'] == 'internvit_debug'
    more = [*options, 'train_cfg.max_iters=6', 'train_cfg.val_interval=6']
    assert tiny_runs.train_detector(tiny_detection.DEMO, folder / 'run', more, '--resume') == 0
    assert [row['step'] for row in tiny_runs.scalars(folder / 'run') if 'loss' in row] == [5, 6]


def test_wrong_classes_are_refused_before_any_work(data, tmp_path, capsys):
    options = tiny_detection.options(data, {'num_classes': 4}, pipelines=False)
    assert tiny_runs.train_detector(tiny_detection.DEMO, tmp_path / 'run', options) == 2
    message = capsys.readouterr().err
    assert 'num_classes=4' in message and '5 classes' in message
    assert not pathlib.Path(tmp_path / 'run' / 'last_checkpoint').exists()
