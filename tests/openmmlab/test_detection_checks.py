"""Mistakes in a detection config are found before any work, all at once."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest
from mmengine.registry import init_default_scope

import internvl_dense.openmmlab.det  # noqa: F401
from internvl_dense.errors import UserError
from internvl_dense.openmmlab.completion import set_data_root
from internvl_dense.openmmlab.config_checks import check_run
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.detection_checks import class_counts, instance_problems
from internvl_dense.openmmlab.tasks import DETECTION, SEGMENTATION, task_of
from tests import tiny_runs

CONFIG = 'demo/mask_rcnn_internvit_debug_demo'
SPLITS = ('train', 'val', 'test')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_data(tmp_path_factory.mktemp('sample'))


def load(data, *options):
    config = load_config(Namespace(config=CONFIG, data_root=str(data), cfg_options=list(options)))
    init_default_scope(config.default_scope)
    return config


def messages(config, **kwargs):
    return [str(problem) for problem in instance_problems(config, kwargs.get('splits', SPLITS), kwargs.get('read', 2))]


def test_sample_data_are_clean_and_val_is_read_once(data):
    assert messages(load(data), read=None) == []


def test_data_root_moves_the_file_of_the_evaluator_too(data):
    config = load(data)
    assert config.val_evaluator.ann_file == str(data / 'annotations' / 'instances_validation.json')
    assert config.train_dataloader.dataset.data_root == str(data)


def test_data_root_is_that_of_the_data_sets_where_the_config_has_none_of_its_own(data):
    config = load_config(Namespace(config=CONFIG))
    config.pop('data_root')
    set_data_root(config, str(data))
    assert config.test_evaluator.ann_file == str(data / 'annotations' / 'instances_validation.json')


def test_every_wrong_class_count_is_named(data):
    config = load(data, 'model.num_classes=4', 'model.roi_head.bbox_head.num_classes=7')
    assert dict(class_counts(config.model)) == {'model': 4, 'model.roi_head.bbox_head': 7}
    with pytest.raises(UserError) as error:
        check_run(config, ('train', 'val'), check_data=0)
    assert 'num_classes=4' in str(error.value) and 'bbox_head has num_classes=7' in str(error.value)


def test_masks_are_asked_for_where_the_pipeline_loads_them(data, tmp_path):
    copied = tiny_runs.make_data(tmp_path)
    path = copied / 'annotations' / 'instances_training.json'
    content = json.loads(path.read_text())
    for entry in content['annotations']:
        del entry['segmentation']
    path.write_text(json.dumps(content))
    assert any('mask_missing' in message or 'segmentation' in message for message in messages(load(copied)))
    boxes = load(copied, 'train_dataloader.dataset.pipeline.1.with_mask=False')
    assert not any('segmentation' in message for message in messages(boxes, splits=('train',)))


def test_an_image_in_two_splits_is_a_warning(data, tmp_path):
    copied = tiny_runs.make_data(tmp_path)
    image = copied / 'images' / 'training' / 'sample_00001.jpg'
    image.write_bytes((copied / 'images' / 'validation' / 'sample_00001.jpg').read_bytes())
    found = instance_problems(load(copied), ('train', 'val'), None)
    assert 'image_in_both' in [problem.rule for problem in found]


def test_missing_file_and_missing_name_are_explained(data):
    config = load(data, 'train_dataloader.dataset.ann_file=nowhere.json', 'val_dataloader.dataset.ann_file=')
    found = {problem.rule: problem for problem in instance_problems(config, ('train', 'val'), 0)}
    assert str(found['json_missing'].file).endswith('nowhere.json')
    assert 'names no ann_file' in found['dataset'].message


def test_only_the_first_process_reads_the_files(data, monkeypatch):
    config = load(data, 'train_dataloader.dataset.ann_file=nowhere.json')
    config.launcher = 'pytorch'
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RANK', '1')
    assert messages(config, splits=('train',)) == []
    monkeypatch.setenv('RANK', '0')
    assert messages(config, splits=('train',)) != []


@pytest.mark.parametrize(('config', 'task'), [
    (CONFIG, DETECTION), ('coco/dino_internvit_6b_224px_coco', DETECTION),
    ('demo/upernet_internvit_debug_demo', SEGMENTATION), ('ade20k/mask2former_internvit_6b_224px_ade20k', SEGMENTATION),
])
def test_task_of_a_config(config, task):
    loaded = load_config(Namespace(config=config))
    assert task_of(loaded) == task
    loaded.model = {'type': 'SegTTAModel', 'module': loaded.model}
    assert task_of(loaded) == task
