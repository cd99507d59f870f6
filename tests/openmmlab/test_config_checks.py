"""Every fault of a config and its data that is known before training, alone and together."""

from __future__ import annotations

import pathlib
import shutil
from argparse import Namespace
from collections.abc import Callable

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from internvl_dense.errors import UserError
from internvl_dense.openmmlab.config_checks import check_run, config_problems
from internvl_dense.openmmlab.configs import load_config

Load = Callable[..., Config]
SPLITS = ('train', 'val')
LABEL = 'annotations/training/sample_00003.png'
IMAGE = 'images/training/sample_00003.jpg'


@pytest.fixture
def broken(demo_config: Load, sample_root: pathlib.Path, tmp_path: pathlib.Path) -> Callable[..., Config]:
    """Returns a demo config on a copy of the sample data; its folder is `tmp_path / 'data'`."""

    def load(*options: str) -> Config:
        shutil.copytree(sample_root, tmp_path / 'data', dirs_exist_ok=True)
        config = demo_config(*options)
        for split in ('train', 'val', 'test'):
            config[f'{split}_dataloader'].dataset.data_root = str(tmp_path / 'data')
        return config

    return load


def fault(config: Config, *words: str) -> str:
    """The only error that the check raises; it holds every word."""
    message = faults(config)
    assert count_errors(message) == 1, message
    for word in words:
        assert word in message, message
    return message


def count_errors(message: str) -> int:
    """Rules that are broken; a rule has one paragraph."""
    assert message.startswith('this config cannot run: '), message
    return sum(line.startswith('  - error ') for line in message.splitlines())


def faults(config: Config) -> str:
    with pytest.raises(UserError) as error:
        check_run(config, SPLITS)
    return str(error.value)


def save_label(tmp_path: pathlib.Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(tmp_path / 'data' / LABEL)


def read_label(tmp_path: pathlib.Path) -> np.ndarray:
    return np.array(Image.open(tmp_path / 'data' / LABEL))


def test_the_demo_config_has_no_fault(demo_config: Load) -> None:
    assert [problem for problem in check_run(demo_config(), SPLITS) if problem.severity == 'error'] == []


@pytest.mark.parametrize('recipe', ['full_tuning', 'head_tuning', 'linear_probing'])
def test_the_reference_configs_lack_nothing_but_their_weights(recipe: str) -> None:
    init_default_scope('mmseg')
    found = config_problems(load_config(Namespace(config=f'ade20k/{recipe}_internvit_6b_224px_ade20k')))
    assert [problem.rule for problem in found if problem.severity == 'error'] == ['weights']


def test_crop_is_not_a_multiple_of_the_patch(demo_config: Load) -> None:
    fault(demo_config('model.data_preprocessor.size=(144,140)'),
          'crop_size (144, 140) is not a multiple of patch_size 14; nearest: (140, 140) or (154, 140)')
    message = fault(demo_config('model.data_preprocessor.size=(128,128)'), 'patch_size=16')
    assert 'resample the patch embedding' in message
    config = demo_config('model.data_preprocessor.size=(128,128)', 'model.backbone.patch_size=16')
    assert check_run(config, SPLITS, check_data=0) is not None


def test_stride_above_the_crop(demo_config: Load) -> None:
    config = demo_config()
    config.model.test_cfg = {'mode': 'slide', 'crop_size': (140, 140), 'stride': (98, 154)}
    fault(config, 'stride (98, 154) is larger than crop_size (140, 140)')


def test_window_without_its_sizes(demo_config: Load) -> None:
    config = demo_config()
    config.model.test_cfg = {'mode': 'slide'}
    fault(config, 'model.test_cfg: mode slide needs crop_size and stride')


def test_unknown_variant(demo_config: Load) -> None:
    fault(demo_config('model.backbone.variant=internvit_debgu'),
          "Unknown backbone 'internvit_debgu'. Did you mean 'internvit_debug'?")


@pytest.mark.parametrize(('option', 'nearest'), [('freezed', 'frozen'), ('out_indexes', 'out_indices'),
                                                 ('qk_nrom', 'qk_norm'), ('weight', 'weights')])
def test_unknown_option(demo_config: Load, option: str, nearest: str) -> None:
    fault(demo_config(f'model.backbone.{option}=1'),
          f"Unknown option of model.backbone '{option}'. Did you mean '{nearest}'?")


def test_unknown_backbone_type(demo_config: Load) -> None:
    fault(demo_config('model.backbone.type=IntrnViT'), "model.backbone.type 'IntrnViT' is in no registry")


def test_options_that_contradict_each_other(demo_config: Load) -> None:
    fault(demo_config('model.backbone.num_heads=5'), 'embed_dim 16 is not a multiple of num_heads 5')


def test_missing_weights(demo_config: Load) -> None:
    fault(demo_config('model.backbone.weights=absent/file.pth'),
          'no file or folder absent/file.pth', 'Say where it is with --weights PATH')


def test_one_value_for_batch_norm(demo_config: Load) -> None:
    fault(demo_config('train_dataloader.batch_size=1'), 'one value per channel with 1 image')


def test_number_of_classes(demo_config: Load) -> None:
    message = fault(demo_config('model.decode_head.num_classes=5'))
    assert 'the head has num_classes=5, train has 6 classes: background, horizontal stripes' in message
    assert 'val has 6 classes' in message


def test_missing_folder(broken: Load, tmp_path: pathlib.Path) -> None:
    config = broken()
    shutil.rmtree(tmp_path / 'data' / 'annotations' / 'training')
    fault(config, 'annotations/training', 'the label folder does not exist')


def test_missing_label(broken: Load, tmp_path: pathlib.Path) -> None:
    config = broken()
    (tmp_path / 'data' / LABEL).unlink()
    fault(config, IMAGE, 'no label sample_00003.png')


def test_missing_image_of_a_list(broken: Load, tmp_path: pathlib.Path) -> None:
    config = broken()
    (tmp_path / 'data' / 'list.txt').write_text('sample_00001\nsample_00009\n')
    config.train_dataloader.dataset.ann_file = 'list.txt'
    fault(config, "the list names 'sample_00009', but there is no sample_00009.jpg")


def test_label_ids_out_of_range(broken: Load, tmp_path: pathlib.Path) -> None:
    config = broken()
    label = read_label(tmp_path)
    label[0, :7] = 9
    save_label(tmp_path, label)
    fault(config, LABEL, '9', '0..5')


def test_masks_of_0_and_255(broken: Load, tmp_path: pathlib.Path) -> None:
    config = broken()
    for path in (tmp_path / 'data' / 'annotations' / 'training').glob('*.png'):
        Image.fromarray(np.where(np.array(Image.open(path)) > 0, 255, 0).astype(np.uint8)).save(path)
    fault(config, '0', '255', 'annotations/training')


def test_labels_with_colours(broken: Load, tmp_path: pathlib.Path) -> None:
    config = broken()
    save_label(tmp_path, np.stack([read_label(tmp_path) * 40] * 3, axis=-1))
    fault(config, LABEL, 'colours')


def test_labels_of_16_bit(broken: Load, tmp_path: pathlib.Path) -> None:
    config = broken()
    label = read_label(tmp_path).astype(np.uint16)
    save_label(tmp_path, label)  # ids that fit in 8 bits are read as they are
    assert not [problem for problem in check_run(config, SPLITS) if problem.severity == 'error']
    label[0, 0] = 256
    save_label(tmp_path, label)
    fault(config, LABEL, '256', 'becomes 0')


def test_sizes_differ(broken: Load, tmp_path: pathlib.Path) -> None:
    config = broken()
    save_label(tmp_path, read_label(tmp_path)[:-4])
    fault(config, '140', '136', 'sample_00003')


def test_only_the_named_splits_are_read(broken: Load, tmp_path: pathlib.Path) -> None:
    config = broken()
    shutil.rmtree(tmp_path / 'data' / 'annotations' / 'training')
    assert [problem for problem in check_run(config, ('val',)) if problem.severity == 'error'] == []


def test_labels_are_not_read_when_only_names_are_asked_for(broken: Load, tmp_path: pathlib.Path) -> None:
    config = broken()
    save_label(tmp_path, read_label(tmp_path)[:-4])
    assert [problem for problem in check_run(config, SPLITS, check_data=0) if problem.severity == 'error'] == []


def test_a_data_set_that_cannot_be_built(demo_config: Load) -> None:
    config = demo_config()
    config.train_dataloader.dataset.type = 'BaseSegDatset'
    fault(config, 'train_dataloader.dataset cannot be built', 'BaseSegDatset')


def test_everything_wrong_comes_in_one_message(broken: Load, tmp_path: pathlib.Path) -> None:
    config = broken('model.data_preprocessor.size=(144,140)', 'model.backbone.freezed=True',
                    'model.backbone.weights=absent.pth', 'train_dataloader.batch_size=1')
    config.model.test_cfg = {'mode': 'slide', 'crop_size': (140, 140), 'stride': (98, 154)}
    (tmp_path / 'data' / LABEL).unlink()
    label = tmp_path / 'data' / 'annotations' / 'validation' / 'sample_00002.png'
    Image.fromarray(np.full((140, 140), 77, np.uint8)).save(label)
    message = faults(config)
    assert count_errors(message) == 7, message
    for word in ('crop_size (144, 140)', "'freezed'", 'absent.pth', 'one value per channel', 'stride (98, 154)',
                 'no label sample_00003.png', 'sample_00002.png'):
        assert word in message, word
