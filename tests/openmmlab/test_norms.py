"""'SyncBN' in a config is this project's, whoever builds it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

import internvl_dense.openmmlab  # noqa: F401  registers the norm
from internvl_dense.training.sync_bn import SyncBatchNorm32

CONFIG = {'type': 'SyncBN', 'requires_grad': True}


@pytest.mark.parametrize('scope', ['mmengine', 'mmseg', 'mmdet'])
def test_built_by_name_in_every_scope(scope: str) -> None:
    init_default_scope(scope)
    assert isinstance(MODELS.build({'type': 'SyncBN', 'num_features': 4}), SyncBatchNorm32)
    name, norm = build_norm_layer(CONFIG, 4)
    assert isinstance(norm, SyncBatchNorm32)
    assert (name, norm.eps, norm.momentum, norm.num_features) == ('bn', 1e-5, 0.1, 4)
    init_default_scope('mmseg')


def test_it_stays_the_same_when_mmcv_and_mmseg_are_imported_later() -> None:
    code = (
        'import internvl_dense.openmmlab, mmseg.models, mmcv.ops\n'
        'from mmcv.cnn import build_norm_layer\n'
        "print(type(build_norm_layer(dict(type='SyncBN'), 4)[1]).__name__)\n"
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert result.stdout.split()[-1:] == ['SyncBatchNorm32'], result.stderr


def test_gradients_can_be_switched_off_in_the_config() -> None:
    norm = build_norm_layer({'type': 'SyncBN', 'requires_grad': False}, 4)[1]
    assert not any(p.requires_grad for p in norm.parameters())


def test_a_convolution_with_it_trains_on_a_cpu_in_one_process() -> None:
    module = ConvModule(3, 4, 3, padding=1, norm_cfg=CONFIG)
    assert isinstance(module.bn, SyncBatchNorm32)
    assert module.conv.bias is None  # mmcv sees that a norm follows
    module(torch.randn(2, 3, 5, 5)).sum().backward()
    assert module.bn.weight.grad is not None
    assert module.bn.running_mean.any()


def test_mmengine_does_not_replace_it_for_a_single_process() -> None:
    module = revert_sync_batchnorm(ConvModule(3, 4, 3, norm_cfg=CONFIG))
    assert isinstance(module.bn, SyncBatchNorm32)
