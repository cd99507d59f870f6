"""The linear head, UperNet and the auxiliary head against the published ones, built as configs build them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import internvl_dense.openmmlab  # noqa: F401  registers the head and SyncBN
from internvl_dense.training.sync_bn import SyncBatchNorm32
from tests.parity.published import ATOL

Golden = Callable[[str], Any]
SYNC_BN = {'type': 'SyncBN', 'requires_grad': True}
LOSS = {'type': 'CrossEntropyLoss', 'avg_non_ignore': True}
UNUSED = ('num_convs', 'concat_input', 'with_norm')  # what makes the published FCN head a linear one


def build_head(config: dict[str, Any], type_: str, **kwargs: Any) -> Any:
    return MODELS.build({
        'type': type_, '_scope_': 'mmseg', 'norm_cfg': SYNC_BN, 'loss_decode': LOSS, **config, **kwargs})


def linear_head(data: dict[str, Any], **loss: Any) -> Any:
    config = {key: value for key, value in data['config'].items() if key not in UNUSED}
    head = build_head(config, 'LinearHead', loss_decode={**LOSS, **loss})
    head.load_state_dict(data['state_dict'])
    return head


def samples(label: torch.Tensor) -> list[SegDataSample]:
    return [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in label]


def train_loss(data: dict[str, Any], **loss: Any) -> torch.Tensor:
    head = linear_head(data, **loss).train()
    losses = head.loss_by_feat(head([data['input']]), samples(data['label']))
    return losses['loss_ce']


def test_linear_head_has_the_published_keys_and_norm(golden: Golden) -> None:
    data = golden('linear_head')
    head = linear_head(data)
    assert head.state_dict().keys() == data['state_dict'].keys() == data['fresh_state_dict'].keys() | {
        'conv_seg.weight', 'conv_seg.bias'}
    assert isinstance(head.norm, SyncBatchNorm32)
    assert (head.norm.eps, head.norm.momentum) == (data['norm_eps'], data['norm_momentum'])
    fresh = build_head({'in_channels': 64, 'num_classes': 7}, 'LinearHead').state_dict()
    for key, value in data['fresh_state_dict'].items():
        assert torch.equal(fresh[key], value), key


def test_linear_head_in_eval_mode(golden: Golden) -> None:
    data = golden('linear_head')
    torch.testing.assert_close(linear_head(data).eval()([data['input']]), data['outputs'][0], atol=ATOL, rtol=0)


def test_linear_head_in_train_mode_and_its_running_statistics(golden: Golden) -> None:
    data = golden('linear_head')
    head = linear_head(data).train()
    torch.testing.assert_close(head([data['input']]), data['outputs_train_mode'][0], atol=ATOL, rtol=0)
    for key, value in data['state_dict_after_train_forward'].items():
        torch.testing.assert_close(head.state_dict()[key], value, atol=ATOL, rtol=0, msg=key)


@pytest.mark.filterwarnings('ignore:Default ``avg_non_ignore`` is False')
def test_published_loss_is_the_mean_over_all_pixels(golden: Golden) -> None:
    data = golden('linear_head')
    torch.testing.assert_close(train_loss(data, avg_non_ignore=False), data['loss_ce_train'], atol=ATOL, rtol=0)


def test_loss_over_labelled_pixels_differs_by_their_share(golden: Golden) -> None:
    data = golden('linear_head')
    labelled = (data['label'] != 255).float().mean()
    assert 0 < labelled < 1
    ours = train_loss(data, avg_non_ignore=True)
    torch.testing.assert_close(ours * labelled, data['loss_ce_train'], atol=ATOL, rtol=0)
    assert abs(ours - data['loss_ce_train']) > 100 * ATOL


@pytest.mark.parametrize(
    ('type_', 'prefix', 'index'), [('UPerHead', '', [0, 1, 2, 3]), ('FCNHead', 'aux_', None)], ids=['uper', 'aux'])
def test_upernet_and_auxiliary_head(golden: Golden, type_: str, prefix: str, index: list[int] | None) -> None:
    data = golden('uper_and_aux_head')
    classes = data['config']['num_classes']
    extra = {'in_index': index} if index else {}
    head = build_head({'num_classes': classes, **data[f'{prefix}config'], **extra}, type_).eval()
    assert sum(isinstance(module, SyncBatchNorm32) for module in head.modules()) > 0
    assert head.state_dict().keys() == data[f'{prefix}state_dict'].keys()
    head.load_state_dict(data[f'{prefix}state_dict'])
    torch.testing.assert_close(head(data['input']), data[f'{prefix}outputs'][0], atol=ATOL, rtol=0)
