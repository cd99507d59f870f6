"""What the data fill into a config: classes and iterations."""

from __future__ import annotations

import pathlib
from argparse import Namespace
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from internvl_dense.data.label_policy import default_palette
from internvl_dense.errors import UserError
from internvl_dense.openmmlab.completion import complete, set_data_root
from internvl_dense.openmmlab.config_checks import check_run
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.summary import describe_run

CLASSES = ('road', 'sign symbol', 'sky')
NAMES = ('a.jpg', 'b.JPG', 'c.png', 'sub/d.webp', 'e.jpeg')
HEAD = 'own_data/head_tuning_internvit_6b_224px_own_data'
DEBUG = 'own_data/upernet_internvit_debug_own_data'


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Five training and two validation images in several formats."""
    root = tmp_path / 'mine'
    for split, names in (('train', NAMES), ('val', NAMES[:2])):
        for name in names:
            image, label = (root / kind / split / name for kind in ('images', 'annotations'))
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(image)
            Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30) % 3).save(label.with_suffix('.png'))
    (root / 'classes.txt').write_text('\n'.join(CLASSES))
    return root


def load(config: str, root: pathlib.Path, *options: str, **more: Any) -> Config:
    return load_config(Namespace(config=config, data_root=str(root), cfg_options=list(options), **more))


def test_classes_come_from_their_file(folder: pathlib.Path) -> None:
    config = load(HEAD, folder)
    assert config.model.decode_head.num_classes == config.model.auxiliary_head.num_classes == 3
    for split in ('train', 'val', 'test'):
        metainfo = config[f'{split}_dataloader'].dataset.metainfo
        assert tuple(metainfo.classes) == CLASSES
        assert [tuple(colour) for colour in metainfo.palette] == list(default_palette(3))
        assert config[f'{split}_dataloader'].dataset.data_root == str(folder)


def test_images_of_any_format_are_found(folder: pathlib.Path) -> None:
    config = load(HEAD, folder)
    init_default_scope('mmseg')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert [pathlib.Path(dataset[i]['data_samples'].img_path).name for i in range(5)] == [
        'a.jpg', 'b.JPG', 'c.png', 'e.jpeg', 'd.webp']
    (folder / 'list.txt').write_text('c\nsub/d\n')
    listed = DATASETS.build({**config.train_dataloader.dataset, 'ann_file': 'list.txt'})
    assert len(listed) == 2


def test_iterations_come_from_epochs(folder: pathlib.Path) -> None:
    """5 images in batches of 2 are 3 iterations an epoch; 300 of them make 38 steps of 8 accumulated ones."""
    config = load(HEAD, folder)
    assert config.train_cfg.max_iters == 304 and config.train_cfg.max_iters % 8 == 0
    assert config.train_cfg.val_interval == 15 == config.default_hooks.checkpoint.interval
    assert (config.param_scheduler[0].max_iters, config.param_scheduler[0].warmup_iters) == (304, 15)


def test_options_win_and_the_rest_follows(folder: pathlib.Path) -> None:
    config = load(HEAD, folder, 'train_cfg.max_iters=40', 'train_cfg.val_interval=7')
    assert (config.param_scheduler[0].max_iters, config.param_scheduler[0].warmup_iters) == (40, 2)
    assert config.default_hooks.checkpoint.interval == 7
    shorter = load(HEAD, folder, 'epochs.total=2', 'train_dataloader.batch_size=4')
    assert (shorter.train_cfg.max_iters, shorter.train_cfg.val_interval) == (8, 8)


def test_completing_twice_changes_nothing(folder: pathlib.Path) -> None:
    config = load(HEAD, folder)
    text = config.pretty_text
    complete(config)
    assert config.pretty_text == text


def test_several_processes_share_an_epoch(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert load(HEAD, folder, launcher='pytorch').train_cfg.val_interval == 10  # 5 epochs of ceil(5 / 4)


@pytest.mark.parametrize(('remove', 'message'), [
    ('classes.txt', 'classes.txt is missing: a text file with the name of one class a line'),
    ('images', 'train'),
])
def test_what_is_missing_is_said_by_the_checks(
    folder: pathlib.Path, remove: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / remove).rename(folder / 'moved')
    config = load(DEBUG, folder)
    with pytest.raises(UserError) as error:
        check_run(config, ('train', 'val'))
    assert message in str(error.value)
    assert 'not a meta file' not in capfd.readouterr().err  # mmengine's word where it takes the path for the names


def test_start_of_a_run_says_what_differs_from_the_recipe(folder: pathlib.Path) -> None:
    text = describe_run(load(DEBUG, folder))
    assert 'training images: 5' in text
    assert '2 images in an optimizer step' in text
    assert '30 iterations of 2 = 12.0 epochs of 3 iterations' in text
    assert '16 images in an optimizer step; lr stays 0.001, in proportion to the images it would be 0.000125' in text
    assert 'normalises over 2 images, in the recipe over 16' in text
    accumulated = describe_run(load(HEAD, folder, 'model.backbone.variant=internvit_debug'))
    assert '16 images in an optimizer step, 2 in a forward pass' in accumulated
    assert 'in proportion' not in accumulated and 'normalises over 2 images' in accumulated
    assert accumulated.endswith('changed: model.backbone.variant') and 'changed' not in text


def test_one_image_a_batch_is_refused_beforehand(folder: pathlib.Path) -> None:
    """Pyramid pooling to 1 x 1 leaves one value per channel, which has no variance."""
    with pytest.raises(UserError, match='one value per channel.*at least 2 images'):
        check_run(load(DEBUG, folder, 'train_dataloader.batch_size=1'), ('train',))


def test_data_root_needs_a_data_set_with_one() -> None:
    with pytest.raises(UserError, match='--data-root'):
        set_data_root(Config({'model': {}, 'train_dataloader': {'dataset': {'type': 'RepeatDataset'}}}), 'x')
