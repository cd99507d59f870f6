from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from internvl_dense.errors import UserError
from internvl_dense.openmmlab.browsing import Browser
from tests import tiny_runs

CROP = {'type': 'RandomCrop', 'crop_size': (56, 70)}


@pytest.fixture
def data(tmp_path):
    return tiny_runs.make_data(tmp_path)


@pytest.fixture
def config(tmp_path, data):
    config = tiny_runs.tiny_config(tiny_runs.CONFIG, tmp_path, data)
    config.train_dataloader.dataset.pipeline.insert(2, CROP)
    return config


def read(path):
    return np.asarray(Image.open(path))


def test_raw_samples_are_the_files(config, data):
    samples = list(Browser(config, 'train', raw=True).samples(100))
    assert [sample.name for sample in samples] == [f'sample_{i:05d}.jpg' for i in range(1, 9)]
    for sample in samples:
        np.testing.assert_array_equal(sample.image_rgb, read(data / 'images' / 'training' / sample.name))
        label = data / 'annotations' / 'training' / sample.name.replace('.jpg', '.png')
        np.testing.assert_array_equal(sample.ids, read(label))


def test_augmented_samples_are_what_the_model_gets(config, data):
    samples = list(Browser(config, 'train').samples(8))
    assert {sample.image_rgb.shape for sample in samples} == {(56, 70, 3)}
    assert {sample.ids.shape for sample in samples} == {(56, 70)}
    again = list(Browser(config, 'train').samples(8))
    other = list(Browser(config, 'train', seed=1).samples(8))
    same = [np.array_equal(a.image_rgb, b.image_rgb) for a, b in zip(samples, again, strict=True)]
    differ = [np.array_equal(a.image_rgb, b.image_rgb) for a, b in zip(samples, other, strict=True)]
    assert all(same) and not all(differ)


def test_the_config_is_left_as_it_was(config):
    before = config.pretty_text
    Browser(config, 'train', raw=True)
    assert config.pretty_text == before


def test_samples_are_spread_over_the_split(config):
    names = [sample.name for sample in Browser(config, 'train', raw=True).samples(3)]
    assert names == ['sample_00001.jpg', 'sample_00003.jpg', 'sample_00006.jpg']


def test_reduced_labels_show_training_ids(config, data):
    config.train_dataloader.dataset.reduce_zero_label = True
    for step in config.train_dataloader.dataset.pipeline:
        step.pop('reduce_zero_label', None)
    browser = Browser(config, 'train', raw=True)
    assert browser.policy.reduce_zero_label
    sample = next(iter(browser.samples(1)))
    label = read(data / 'annotations' / 'training' / 'sample_00001.png').astype(int)
    np.testing.assert_array_equal(sample.ids, np.where((label == 0) | (label == 255), 255, label - 1))


def test_a_bad_file_is_noted_and_the_others_come(config, data):
    bad = data / 'images' / 'training' / 'sample_00002.jpg'
    bad.write_bytes(b'hello')
    browser = Browser(config, 'train')
    assert len(list(browser.samples(8))) == 7
    assert list(browser.faults) == [str(bad)]
    assert 'failed to load image' in browser.faults[str(bad)]


def test_a_split_without_labels_or_files(config, data):
    with pytest.raises(UserError, match='is not a folder|no such folder|does not exist'):
        shutil.rmtree(data / 'images' / 'training')
        Browser(config, 'train')
    config.test_dataloader.dataset.pipeline.pop(1)
    with pytest.raises(UserError, match='test_dataloader.dataset.pipeline loads no labels: LoadImageFromFile, Pack'):
        Browser(config, 'test')
