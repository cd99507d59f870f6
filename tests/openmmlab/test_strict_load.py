"""Whole models load completely or not at all, also inside wrappers and from published segmentors."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import internvl_dense.openmmlab  # noqa: F401  registers the models
from internvl_dense.errors import UserError
from internvl_dense.openmmlab.launch import build_runner
from internvl_dense.openmmlab.strict_load import SHOWN, load_model_state, rename_legacy, unwrap

Load = Callable[..., Config]


class Small(nn.Module):
    """Two layers behind the prefixes of a segmentor."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = nn.ModuleDict({'up1': nn.Sequential(nn.Linear(2, 3))})
        self.decode_head = nn.ModuleDict({'norm': nn.BatchNorm1d(3)})

    def test_step(self, data: object) -> None:
        """Makes it a model that can be tested in a wrapper."""


class Wrapper(BaseTTAModel):
    def merge_preds(self, data_samples_list: object) -> object:
        return data_samples_list


def filled(value: float) -> dict[str, torch.Tensor]:
    return {key: torch.full_like(tensor, value) for key, tensor in Small().state_dict().items()}


def all_equal(model: nn.Module, value: float) -> bool:
    return all(bool((tensor == value).all()) for tensor in model.state_dict().values())


def test_a_complete_state_is_copied() -> None:
    model = Small()
    load_model_state(model, filled(3))
    assert all_equal(model, 3)


@pytest.mark.parametrize(
    ('old', 'new'),
    [('backbone.up1.0.weight', 'neck.up1.0.weight'), ('backbone.up4.1.bias', 'neck.up4.1.bias'),
     ('module.backbone.up2.0.bias', 'neck.up2.0.bias'), ('backbone.blocks.0.ls1.gamma',) * 2,
     ('backbone.up5.0.weight',) * 2, ('decode_head.norm.weight',) * 2,
     ('module.decode_head.norm.weight', 'decode_head.norm.weight')],
)
def test_names_of_older_checkpoints(old: str, new: str) -> None:
    assert rename_legacy(old) == new


def test_published_segmentors_keep_the_pyramid_in_the_backbone() -> None:
    model = Small()
    load_model_state(model, {key.replace('neck.', 'module.backbone.'): value for key, value in filled(5).items()})
    assert all_equal(model, 5)


def test_everything_that_does_not_fit_is_listed_and_nothing_is_changed() -> None:
    model = Small()
    load_model_state(model, filled(1))
    state = filled(2)
    del state['decode_head.norm.running_var']
    state['decode_head.conv.weight'] = torch.zeros(1)
    state['neck.up1.0.weight'] = torch.zeros(3, 4)
    with pytest.raises(UserError) as error:
        load_model_state(model, state)
    assert str(error.value) == (
        'the checkpoint does not fit the model of this config: 3 problems\n'
        '  - 1 missing in the checkpoint: decode_head.norm.running_var\n'
        '  - 1 unknown to the model: decode_head.conv.weight\n'
        '  - 1 of other shapes: neck.up1.0.weight (file (3, 4), model (3, 2))'
    )
    assert all_equal(model, 1)


def test_the_file_is_named_and_values_that_are_no_tensors_do_not_fit() -> None:
    state = {**filled(2), 'decode_head.norm.bias': {'nested': torch.zeros(3)}}
    with pytest.raises(UserError) as error:
        load_model_state(Small(), state, source='a.pth')  # type: ignore[arg-type]
    assert str(error.value).startswith('a.pth does not fit the model of this config: 1 problem')
    assert 'decode_head.norm.bias (file None, model (3,))' in str(error.value)


def test_long_lists_are_cut() -> None:
    extra = {f'other.{i}': torch.zeros(1) for i in range(SHOWN + 3)}
    with pytest.raises(UserError, match=rf'{SHOWN + 3} unknown to the model: .* and 3 more'):
        load_model_state(Small(), {**filled(0), **extra})


def test_wrappers_are_looked_through() -> None:
    inner = Small()
    assert unwrap(inner) is inner
    assert unwrap(Wrapper(inner)) is inner
    load_model_state(Wrapper(inner), filled(4))
    assert all_equal(inner, 4)
    with pytest.raises(UserError, match='missing in the checkpoint'):
        load_model_state(Wrapper(inner), {})


@pytest.fixture
def checkpoint(demo_config: Load, tmp_path: pathlib.Path) -> pathlib.Path:
    init_default_scope('mmseg')
    model = MODELS.build(demo_config().model)
    model.init_weights()
    path = tmp_path / 'whole.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
    return path


def with_tta(config: Config) -> Config:
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    config.model = {**config.tta_model, 'module': config.model}
    return config


def test_test_time_augmentation_loads_the_inner_model(demo_config: Load, checkpoint: pathlib.Path) -> None:
    config = with_tta(demo_config())
    config.load_from = str(checkpoint)
    runner = build_runner(config)
    metrics = runner.test()
    assert 0 <= metrics['mIoU'] <= 100
    saved = torch.load(checkpoint, weights_only=True)['state_dict']
    loaded = runner.model.module.state_dict()
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(value.cpu(), saved[key]) for key, value in loaded.items())


def test_test_time_augmentation_refuses_a_checkpoint_of_another_model(
    demo_config: Load, checkpoint: pathlib.Path
) -> None:
    config = with_tta(demo_config('model.decode_head.channels=4'))
    config.load_from = str(checkpoint)
    with pytest.raises(UserError, match=r'whole.pth .*\n.*conv_seg.weight .file .6, 8, 1, 1., model .6, 4, 1, 1'):
        build_runner(config).test()
