"""The few-shot subsets of ADE20K that the configs name: seeded, of the published sizes, and nested."""

from __future__ import annotations

import json
import pathlib
from argparse import Namespace

import pytest

from internvl_dense.data.few_shot import few_shot_names, read_list
from internvl_dense.openmmlab.configs import load_config

FOLDER = pathlib.Path(__file__).resolve().parents[2] / 'configs' / 'ade20k' / 'few_shot'
# The release numbers its 20,210 training images; k = 20210 // 16, // 8, // 4, // 2.
ALL = [f'ADE_train_{number:08d}' for number in range(1, 20_211)]
PUBLISHED_K = {16: 1263, 8: 2526, 4: 5052, 2: 10_105}


@pytest.mark.parametrize('share', PUBLISHED_K)
def test_list_is_the_seeded_draw_of_the_published_size(share):
    names = read_list(FOLDER / f'1of{share}_seed0.txt')
    assert len(names) == len(set(names)) == PUBLISHED_K[share]
    assert names == few_shot_names(ALL, f'1/{share}', seed=0)
    record = json.loads((FOLDER / f'1of{share}_seed0.json').read_text())
    assert (record['seed'], record['count'], record['of']) == (0, PUBLISHED_K[share], 20_210)


@pytest.mark.parametrize('share', PUBLISHED_K)
def test_config_names_its_list_wherever_it_is_started(share, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(Namespace(config=f'ade20k/few_shot_1of{share}_internvit_6b_224px_ade20k'))
    path = pathlib.Path(config.train_dataloader.dataset.ann_file)
    assert path.is_absolute() and path.samefile(FOLDER / f'1of{share}_seed0.txt')
    assert not config.val_dataloader.dataset.get('ann_file')
    iterations, images = config.train_cfg.max_iters, PUBLISHED_K[share]
    assert iterations == config.param_scheduler[0].max_iters
    assert iterations * 16 / images == pytest.approx(80_000 * 16 / 20_210, rel=1e-3)  # as many epochs as in full


def test_the_whole_set_needs_no_list():
    config = load_config(Namespace(config='ade20k/few_shot_1of1_internvit_6b_224px_ade20k'))
    assert config.train_dataloader.dataset.ann_file == ''
    assert config.train_cfg.max_iters == 80_000
