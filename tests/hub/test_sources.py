"""Names and what they stand for."""

from __future__ import annotations

import pytest

from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.errors import UserError
from internvl_dense.hub.sources import Source, find_source, rows
from internvl_dense.zoo import REPOSITORY, ZOO, ReleasedModel

CELL = 'head_tuning_internvit_6b_224px_ade20k'


def test_the_single_file_of_a_variant():
    assert find_source('internvit_6b_224px') == Source(
        'internvit_6b_224px', REPOSITORY, 'MIT', files=('intern_vit_6b_224px.pth',), size_gb=12)


def test_the_folder_of_a_variant():
    folder = Source('internvit_6b_448px_v2_5', 'OpenGVLab/InternViT-6B-448px-V2_5', 'MIT',
                    folder='InternViT-6B-448px-V2_5', size_gb=11)
    assert find_source('internvit_6b_448px_v2_5', folder=True) == folder
    only = find_source('internvit_300m_448px')  # published as a folder alone
    assert only == find_source('internvit_300m_448px', folder=True) and only.folder == 'InternViT-300M-448px'


def test_a_cell(monkeypatch):
    monkeypatch.setitem(ZOO._items, 'seen', ReleasedModel('seen', 'ade20k', 'stem', 1.0, size_gb=2.5, sha256='ab'))
    assert find_source('seen') == Source(
        'seen', REPOSITORY, 'MIT', files=('stem.pth', 'stem.log'), optional=('stem.log',), size_gb=2.5, sha256='ab',
        is_cell=True)
    assert find_source('seen').checksum_of('stem.pth') == 'ab' and find_source('seen').checksum_of('stem.log') is None
    log = find_source('seen', log=True)
    assert log == Source('seen', REPOSITORY, 'MIT', files=('stem.log',), is_cell=True)
    assert log.checksum_of('stem.log') is None


@pytest.mark.parametrize('name, near', [
    ('internvit_6b_224', 'Nearest variants: internvit_6b_224px'),
    ('head_tuning_internvit_6b_224px_ade', f'cells: {CELL}'),
    ('internvit_6b_224px_ade20k', 'Nearest variants: internvit_6b_'),
    ('internvit_6b_224px_ade20k', 'Nearest cells: '),
])
def test_unknown_names(name, near):
    with pytest.raises(UserError, match='--list shows all') as caught:
        find_source(name)
    assert near in str(caught.value) and f'Unknown variant or cell {name!r}' in str(caught.value)


def test_a_name_like_no_other():
    with pytest.raises(UserError) as caught:
        find_source('zzz')
    assert str(caught.value) == "Unknown variant or cell 'zzz'. internvl-dense fetch --list shows all."


@pytest.mark.parametrize('name, options, complaint', [
    (CELL, {'folder': True}, 'published as a single file, upernet_intern_vit_6b_504_80k_ade20k_bs16_lr4e-5_frozen.pth'),
    ('internvit_6b_224px', {'log': True}, 'no training log was published for the variant internvit_6b_224px'),
    ('internvit_debug', {}, 'internvit_debug has no published weights. With weights: internvit_6b_224px, '),
])
def test_options_that_do_not_go_with_the_name(name, options, complaint):
    with pytest.raises(UserError) as caught:
        find_source(name, **options)
    assert complaint in str(caught.value)


def test_rows(monkeypatch):
    monkeypatch.setitem(ZOO._items, 'seen', ReleasedModel('seen', 'ade20k', 'stem', 1.25, size_gb=2.5, sha256='ab'))
    listed = {row.name: row for row in rows()}
    assert list(listed) == [*(name for name in VARIANTS.list() if name != 'internvit_debug'), *ZOO.list()]
    assert (listed['seen'].file, listed['seen'].size, listed['seen'].sha256) == ('stem.pth', '2.5 GB', 'ab')
    cell = listed[CELL]
    assert (cell.miou, cell.size, cell.sha256) == ('54.9', 'not stated', 'unknown until first seen')
    assert listed['internvit_300m_448px'].file == 'OpenGVLab/InternViT-300M-448px/'
    for name in listed:
        assert find_source(name).name == name
