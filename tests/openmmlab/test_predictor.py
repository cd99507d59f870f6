"""Predictions of a tiny trained model: the same as in a test run, from any readable file."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

from internvl_dense.errors import UserError
from internvl_dense.openmmlab import predictor
from internvl_dense.openmmlab.launch import build_runner
from internvl_dense.openmmlab.predictor import BadImageError, load_predictor, pick_device, prediction_steps
from internvl_dense.safe_load import load_file, save_file
from tests import tiny_runs

WINDOWS = {'model.test_cfg.mode': 'slide', 'model.test_cfg.crop_size': '[56,56]', 'model.test_cfg.stride': '[42,42]'}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_data(tmp_path_factory.mktemp('sample'))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, data) -> pathlib.Path:
    """Saved by a run; its classifier is drawn anew, so that every picture gets several classes."""
    work_dir = tmp_path_factory.mktemp('run')
    changes = {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2}
    assert tiny_runs.train(tiny_runs.CONFIG, work_dir, data=data, **changes) == 0
    return pathlib.Path(changed(work_dir, work_dir / 'iter_2.pth', draw_classifier))


def draw_classifier(content) -> None:
    generator = torch.Generator().manual_seed(0)
    state = content['state_dict']
    weight = torch.randn(state['decode_head.conv_seg.weight'].shape, generator=generator)
    state['decode_head.conv_seg.weight'] = weight - weight.mean(1, keepdim=True)
    state['decode_head.conv_seg.bias'] = torch.zeros(len(weight))


@pytest.fixture
def config(tmp_path, data):
    return tiny_runs.tiny_config(tiny_runs.CONFIG, tmp_path, data)


@pytest.fixture(scope='module')
def images(data):
    return sorted((data / 'images' / 'validation').glob('*.jpg'))


def changed(folder, checkpoint, change) -> str:
    """A copy of the checkpoint with something changed."""
    content = load_file(checkpoint)
    change(content)
    kept = {key: content[key] for key in ('state_dict', 'meta') if key in content}
    save_file(kept, folder / 'changed.pth')
    return str(folder / 'changed.pth')


@pytest.mark.parametrize('mode', ['whole', 'windows on a larger image'])
def test_predictions_are_those_of_a_test_run(mode, tmp_path, checkpoint, data, images):
    changes = {} if mode == 'whole' else WINDOWS
    config = tiny_runs.tiny_config(tiny_runs.CONFIG, tmp_path, data, **changes)
    if mode != 'whole':
        resize = {'type': 'SETRResize', 'scale': (300, 154), 'crop_size': (56, 56)}
        config.test_dataloader.dataset.pipeline.insert(1, resize)
    config.load_from = str(checkpoint)
    config.test_evaluator.output_dir = str(tmp_path / 'tested')
    build_runner(config.copy()).test()
    predict = load_predictor(config, str(checkpoint), 'cpu')
    found = set()
    for path in images:
        image, ids = predict(path)
        tested = np.asarray(Image.open(tmp_path / 'tested' / f'{path.stem}.png'))
        np.testing.assert_array_equal(ids, tested)
        np.testing.assert_array_equal(image, np.asarray(Image.open(path)))
        found |= set(np.unique(ids).tolist())
    assert len(found) > 1, 'one class everywhere would prove nothing'


@pytest.mark.parametrize('mode', ['L', 'P', 'CMYK', 'RGBA', 'LA', '1'])
def test_every_pixel_format_is_read(tmp_path, config, checkpoint, images, mode):
    file = tmp_path / ('x.jpg' if mode == 'CMYK' else 'x.png')
    Image.open(images[0]).convert(mode).resize((90, 60)).save(file)
    image, ids = load_predictor(config, str(checkpoint), 'cpu')(file)
    assert image.shape == (60, 90, 3) and image.dtype == np.uint8
    assert ids.shape == (60, 90) and ids.dtype == np.uint8


def test_an_image_is_turned_upright(tmp_path, config, checkpoint, images):
    picture = Image.open(images[0]).resize((90, 60))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / 'x.jpg', exif=exif)
    image, ids = load_predictor(config, str(checkpoint), 'cpu')(tmp_path / 'x.jpg')
    assert image.shape == (90, 60, 3) and ids.shape == (90, 60)


def test_a_bad_file_says_why_and_does_not_spoil_the_next(tmp_path, config, checkpoint, images):
    predict = load_predictor(config, str(checkpoint), 'cpu')
    whole = images[0].read_bytes()
    bad = {'empty.jpg': (b'', 'the file is empty'), 'text.png': (b'hello', 'not an image file'),
           'cut.jpg': (whole[: len(whole) // 2], 'truncated')}
    for name, (content, reason) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadImageError, match=reason):
            predict(tmp_path / name)
    Image.fromarray(np.zeros((2, 3), dtype=np.uint8)).save(tmp_path / 'tiny.png')
    with pytest.raises(BadImageError, match='too small'):
        predict(tmp_path / 'tiny.png')
    Image.fromarray(np.zeros((60, 60), dtype=np.float32)).save(tmp_path / 'float.tif')
    with pytest.raises(BadImageError, match='failed to load image'):
        predict(tmp_path / 'float.tif')
    with pytest.raises(BadImageError):
        predict(tmp_path / 'absent.jpg')
    assert predict(images[0])[1].shape == (140, 140)


def test_an_image_too_large_for_the_gpu_is_a_bad_one(config, checkpoint, images, monkeypatch):
    predict = load_predictor(config, str(checkpoint), 'cpu')

    def fail(batch):
        raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(predict.model, 'test_step', fail)
    with pytest.raises(BadImageError, match='140 x 140 px are too many'):
        predict(images[0])


def test_weights_that_the_config_names_are_not_needed(config, checkpoint, images):
    config.model.backbone.weights = 'no/such/file.pth'
    load_predictor(config, str(checkpoint), 'cpu')(images[0])


def test_classes_and_colours_come_from_the_checkpoint(config, checkpoint):
    metainfo = config.test_dataloader.dataset.pop('metainfo')
    policy = predictor.label_policy(config, str(checkpoint))
    assert policy.classes == tuple(metainfo['classes'])
    assert policy.palette == tuple(tuple(colour) for colour in metainfo['palette'])
    assert policy.ignore_index == 255 and not policy.reduce_zero_label


def test_without_classes_in_the_checkpoint_the_config_names_them(tmp_path, config, checkpoint):
    bare = changed(tmp_path, checkpoint, lambda content: content['meta'].pop('internvl_dense'))
    assert predictor.label_policy(config, bare).classes[0] == 'background'
    config.test_dataloader.dataset.pop('metainfo')
    with pytest.raises(UserError, match='does not say its classes .* neither does the config'):
        predictor.label_policy(config, bare)


def test_a_number_of_classes_that_is_not_the_models(tmp_path, config, checkpoint):
    config.model.decode_head.num_classes = 7
    with pytest.raises(UserError, match=r'num_classes=7, .*changed.pth has 6 classes: background'):
        predictor.label_policy(config, str(checkpoint))
    bare = changed(tmp_path, checkpoint, lambda content: content.pop('meta'))
    with pytest.raises(UserError, match=r'num_classes=7, the test data set has 6 classes'):
        predictor.label_policy(config, bare)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, config, checkpoint):
    other = changed(tmp_path, checkpoint, lambda content: content['state_dict'].pop('decode_head.conv_seg.bias'))
    with pytest.raises(UserError, match='decode_head.conv_seg.bias'):
        load_predictor(config, other, 'cpu')
    with pytest.raises(UserError, match='absent.pth does not exist'):
        load_predictor(config, str(tmp_path / 'absent.pth'), 'cpu')


def test_steps_are_those_of_the_test_pipeline_without_labels(config):
    config.test_dataloader.dataset.pipeline[1]['type'] = 'mmseg.LoadAnnotations'
    assert [step['type'] for step in prediction_steps(config)] == ['LoadImageFromFile', 'PackSegInputs']
    config.test_dataloader.dataset.pipeline.pop(0)
    with pytest.raises(UserError, match='must begin with LoadImageFromFile'):
        prediction_steps(config)


def test_settings_tell_models_apart(config, checkpoint):
    first = predictor.settings(config, str(checkpoint))
    assert len(first['checkpoint_sha256']) == 64
    config.work_dir = 'elsewhere'
    assert predictor.settings(config, str(checkpoint)) == first
    config.model.test_cfg.mode = 'slide'
    assert predictor.settings(config, str(checkpoint)) != first


def test_devices():
    assert pick_device('cpu') == torch.device('cpu')
    assert pick_device(None).type == ('cuda' if torch.cuda.is_available() else 'cpu')
    with pytest.raises(UserError, match="device 'gpu': write"):
        pick_device('gpu')
    with pytest.raises(UserError, match=r"device 'cuda:99': torch sees \d+ CUDA devices"):
        pick_device('cuda:99')
