"""Objects that a tiny detector finds: those of a test run, from the predictor and from the command."""

from __future__ import annotations

import json
import pathlib
import shutil
from argparse import Namespace
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from internvl_dense.commands import predict
from internvl_dense.data.rle import decode
from internvl_dense.errors import UserError
from internvl_dense.openmmlab import predictor
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.launch import build_runner
from internvl_dense.openmmlab.predictor import BadImageError, InstancePredictor, load_predictor
from internvl_dense.safe_load import load_file, save_file
from tests import tiny_detection, tiny_runs

pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')

MODEL = {**tiny_detection.TWO_STAGE, **tiny_detection.ONE_BOX_HEAD, 'neck.norm_cfg.num_groups': 2,
         'test_cfg.rcnn.score_thr': 0.01}


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> pathlib.Path:
    return tiny_runs.make_data(tmp_path_factory.mktemp('sample'))


def options(data: pathlib.Path, **changes) -> list[str]:
    return tiny_detection.options(data, MODEL, pipelines=False, **changes)


def config_of(data: pathlib.Path, work_dir: pathlib.Path, **changes):
    args = Namespace(config=tiny_detection.DEMO, work_dir=work_dir, cfg_options=options(data, **changes)[1:])
    return load_config(args)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, data) -> pathlib.Path:
    work_dir = tmp_path_factory.mktemp('run')
    changes = {'train_cfg.max_iters': 1, 'train_cfg.val_interval': 1, 'default_hooks.checkpoint.interval': 1}
    assert tiny_runs.train_detector(tiny_detection.DEMO, work_dir, options(data, **changes)) == 0
    return work_dir / 'iter_1.pth'


@pytest.fixture(scope='module')
def tested(tmp_path_factory, data, checkpoint) -> pathlib.Path:
    """Results of a test run, on images that are made smaller first."""
    folder = tmp_path_factory.mktemp('tested')
    config = config_of(data, folder, **{'test_dataloader.dataset.pipeline.1.scale': '(90,90)'})
    config.load_from = str(checkpoint)
    config.test_evaluator.outfile_prefix = str(folder / 'results')
    build_runner(config).test()
    return folder


@pytest.fixture
def config(data, tmp_path):
    return config_of(data, tmp_path, **{'test_dataloader.dataset.pipeline.1.scale': '(90,90)'})


@pytest.fixture(scope='module')
def images(data) -> list[pathlib.Path]:
    return sorted((data / 'images' / 'validation').glob('*.jpg'))


def test_objects_are_those_of_a_test_run(config, checkpoint, tested, images):
    find = load_predictor(config, str(checkpoint), 'cpu')
    assert isinstance(find, InstancePredictor)
    listed = json.loads((tested / 'results.segm.json').read_text())
    total = 0
    for number, path in enumerate(images, 1):
        image, found = find(path)
        np.testing.assert_array_equal(image, np.asarray(Image.open(path)))
        expected = [entry for entry in listed if entry['image_id'] == number]
        assert len(found) == len(expected)
        for position, entry in enumerate(expected):
            x0, y0, x1, y1 = found.boxes[position]
            assert entry['bbox'] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=1e-4)
            assert entry['score'] == pytest.approx(found.scores[position], abs=1e-6)
            assert entry['category_id'] == found.labels[position] + 1
            np.testing.assert_array_equal(decode(entry['segmentation']), found.masks[position])
        total += len(found)
    assert total > 10, 'a detector that finds nothing would prove nothing'


def test_boxes_and_masks_have_the_size_of_the_file(config, checkpoint, images, tmp_path):
    Image.open(images[0]).resize((200, 120)).save(tmp_path / 'wide.png')
    image, found = load_predictor(config, str(checkpoint), 'cpu')(tmp_path / 'wide.png')
    assert image.shape == (120, 200, 3) and found.masks.shape == (len(found), 120, 200)
    assert len(found) and found.boxes[:, 0::2].max() <= 200 and found.boxes[:, 1::2].max() <= 120


def test_a_bad_file_says_why(config, checkpoint, tmp_path):
    (tmp_path / 'a.png').write_text('hello')
    with pytest.raises(BadImageError, match='not an image file'):
        load_predictor(config, str(checkpoint), 'cpu')(tmp_path / 'a.png')


def changed(folder: pathlib.Path, checkpoint: pathlib.Path, meta: dict | None) -> str:
    content = load_file(checkpoint)
    save_file({'state_dict': content['state_dict'], 'meta': meta or {}}, folder / 'changed.pth')
    return str(folder / 'changed.pth')


def test_classes_come_from_the_checkpoint_or_the_config(config, checkpoint, tmp_path):
    names = predictor.instance_classes(config, str(checkpoint))
    assert names.classes == tiny_detection.CLASSES and names.palette[0] == (226, 92, 72)
    bare = changed(tmp_path, checkpoint, None)
    assert predictor.instance_classes(config, bare) == names
    foreign = changed(tmp_path, checkpoint, {'dataset_meta': {'classes': ('a', 'b', 'c', 'd', 'e')}})
    assert predictor.instance_classes(config, foreign).classes == ('a', 'b', 'c', 'd', 'e')
    few = changed(tmp_path, checkpoint, {'dataset_meta': {'classes': ('a', 'b')}})
    with pytest.raises(UserError, match=r'changed.pth has 2 classes \(a, b\), and model has num_classes=5'):
        predictor.instance_classes(config, few)


# The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(checkpoint, data, tmp_path) -> Callable[..., int]:
    def run(*inputs, extra=(), **changes) -> int:
        words = [tiny_detection.DEMO, checkpoint, *inputs, '--out', tmp_path / 'out', '--device', 'cpu', *extra,
                 *options(data, **changes)]
        return predict.main([str(word) for word in words])

    return run


def files(folder: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def test_a_folder_becomes_overlays_and_one_json(command, data, images, tmp_path, capsys):
    assert command(images[0].parent, extra=['--score-thr', 0.05]) == 0
    out = tmp_path / 'out'
    assert files(out) == sorted([
        'predict.json', 'predictions.json', *(f'instances/{path.stem}.json' for path in images),
        *(f'overlays/{path.stem}.jpg' for path in images)])
    assert f'{len(images)} images predicted' in capsys.readouterr().out
    content = json.loads((out / 'predictions.json').read_text())
    assert [image['file_name'] for image in content['images']] == [path.name for path in images]
    assert [category['name'] for category in content['categories']] == list(tiny_detection.CLASSES)
    loaded = COCO(str(data / 'annotations' / 'instances_validation.json')).loadRes(content['predictions'])
    assert len(loaded.anns) == len(content['predictions']) > 10
    settings = json.loads((out / 'predict.json').read_text())['settings']
    assert settings['score_thr'] == 0.05 and settings['classes'] == list(tiny_detection.CLASSES)


def test_a_stopped_run_continues(command, images, tmp_path, capsys, monkeypatch):
    from internvl_dense.data.instance_files import InstanceFolder

    save, saved = InstanceFolder.save, []

    def stop_at_the_third(self, name, image, result):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(name)
        save(self, name, image, result)

    monkeypatch.setattr(InstanceFolder, 'save', stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        command(images[0].parent)
    monkeypatch.undo()
    assert not (tmp_path / 'out' / 'predictions.json').exists()
    assert command(images[0].parent) == 0
    assert f'{len(images)} images, 2 of them predicted before' in capsys.readouterr().out
    content = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert len(content['images']) == len(images)
    with pytest.raises(UserError, match='score_thr: 0.3 there, 0.5 now'):
        command(images[0].parent, extra=['--score-thr', 0.5])


def test_ids_of_an_annotation_file(command, images, tmp_path):
    folder = tmp_path / 'mine' / 'val'
    folder.mkdir(parents=True)
    shutil.copy(images[0], folder)
    path = tmp_path / 'a.json'
    path.write_text(json.dumps({
        'images': [{'id': 77, 'file_name': images[0].name, 'width': 140, 'height': 140}],
        'categories': [{'id': 9 - label, 'name': name} for label, name in enumerate(tiny_detection.CLASSES)]}))
    assert command(folder, extra=['--ann-file', path]) == 0
    content = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert {entry['image_id'] for entry in content['predictions']} == {77}
    assert [category['id'] for category in content['categories']] == [9, 8, 7, 6, 5]
    with pytest.raises(UserError, match='4 of 5 images are not in it'):
        command(images[0].parent, extra=['--ann-file', path])


def test_segmentation_models_have_no_scores(data, checkpoint, images, tmp_path):
    words = [tiny_runs.CONFIG, checkpoint, images[0], '--out', tmp_path / 'out', '--score-thr', 0.5,
             *tiny_runs.options(data)]
    with pytest.raises(UserError, match='--score-thr: for detectors'):
        predict.main([str(word) for word in words])
    assert not (tmp_path / 'out').exists()


def test_memory_of_the_gpu_is_a_bad_image(config, checkpoint, images, monkeypatch):
    find = load_predictor(config, str(checkpoint), 'cpu')

    def fail(batch):
        raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(find.model, 'test_step', fail)
    with pytest.raises(BadImageError, match='140 x 140 px are too many'):
        find(images[0])
