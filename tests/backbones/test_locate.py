"""Where published weights are looked for."""

from __future__ import annotations

import os

import pytest

from internvl_dense import create_backbone
from internvl_dense.backbones.locate import ENVIRONMENT, find_weights, places, published_weights
from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.errors import UserError
from internvl_dense.safe_load import save_file
from tests.checkpoints import SPEC, assert_holds, random_state, weights_info

LARGE, SMALL = VARIANTS.get('internvit_6b_224px'), VARIANTS.get('internvit_300m_448px')


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    return tmp_path


def test_the_variable_goes_before_the_folder(here, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, os.pathsep.join([str(here / 'a'), str(here / 'b')]))
    assert [path.name for path in places()] == ['a', 'b', 'pretrained']
    for folder in ('b', 'pretrained'):
        (here / folder).mkdir()
        (here / folder / 'intern_vit_6b_224px.pth').touch()
    assert published_weights(LARGE).parent == here / 'b'
    monkeypatch.delenv(ENVIRONMENT)
    assert published_weights(LARGE).resolve() == here / 'pretrained' / 'intern_vit_6b_224px.pth'


def test_a_folder_of_the_hub_serves_too(here):
    folder = here / 'pretrained' / 'InternViT-300M-448px'
    folder.mkdir(parents=True)
    assert published_weights(SMALL).resolve() == folder


def test_absent_weights_say_everything_that_is_needed(here, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, '/no/such/folder')
    with pytest.raises(UserError) as error:
        published_weights(LARGE)
    for part in ('intern_vit_6b_224px.pth', 'InternViT-6B-224px', '12 GB', 'licence MIT', '/no/such/folder',
                 str(here / 'pretrained'), 'internvl-dense fetch internvit_6b_224px --to pretrained', '--weights PATH',
                 '--weights random'):
        assert part in str(error.value), part


def test_a_variant_without_published_weights():
    with pytest.raises(UserError, match="internvit_debug has no published weights.*weights='random'"):
        published_weights(VARIANTS.get('internvit_debug'))


def test_what_weights_may_be(here):
    assert find_weights(LARGE, None) is None and find_weights(LARGE, 'random') is None
    assert find_weights(LARGE, 'some/file.pth') == here.relative_to(here) / 'some' / 'file.pth'
    with pytest.raises(UserError, match='internvl-dense fetch'):
        find_weights(LARGE, 'published')


def test_create_backbone_by_each_word(here, monkeypatch, caplog):
    caplog.set_level('INFO', 'internvl_dense')
    row = SPEC.replace(name='internvit_tiny_published', weights=weights_info())
    monkeypatch.setitem(VARIANTS._items, row.name, row)
    state = random_state(row)
    (here / 'pretrained').mkdir()
    save_file(state, here / 'pretrained' / row.weights.file)
    assert_holds(create_backbone(row.name, weights='published'), state)
    assert 'RANDOM' not in caplog.text
    for weights in ('random', None):
        caplog.clear()
        create_backbone(row.name, weights=weights)
        assert 'RANDOM weights, no file was loaded' in caplog.text
