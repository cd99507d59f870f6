"""mmcv's compiled kernel: usable only where it is compiled, and then called with the right arguments."""

from __future__ import annotations

import importlib
import importlib.machinery
from typing import Any

import pytest
import torch

import internvl_dense.openmmlab  # noqa: F401  the stand-in for operators comes first
from internvl_dense.errors import UserError
from internvl_dense.openmmlab import deform_attn_mmcv
from internvl_dense.ops.deform_attn import DEFORM_KERNELS, get_deform_attn, usable_deform_kernels
from internvl_dense.ops.deform_attn_grid_sample import grid_sample_deform_attn
from tests.ops.deform_attn_cases import CASES, compare, make

STAND_IN = getattr(importlib.import_module('mmcv._ext'), '__file__', None) is None
REASON = deform_attn_mmcv._why_not(None)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmcv's extension has a file."""
    spec = importlib.machinery.ModuleSpec('mmcv._ext', None, origin='_ext.so')
    monkeypatch.setattr(deform_attn_mmcv.importlib.util, 'find_spec', lambda name: spec)


@pytest.mark.skipif(not STAND_IN, reason='mmcv is compiled')
def test_the_stand_in_for_operators_is_no_kernel() -> None:
    assert 'mmcv' not in usable_deform_kernels()
    with pytest.raises(UserError, match="'mmcv' is not usable: mmcv is installed without its compiled operators"):
        get_deform_attn('mmcv')


def test_types_and_devices_it_does_not_know(compiled: None) -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert DEFORM_KERNELS.get('mmcv').why_not(torch.zeros(1, dtype=dtype)) == (
            'its kernels know no bf16 and add up fp16 in fp16, so it takes fp32 or fp64 on a CUDA device, got '
            f'{dtype} on cpu')


@pytest.mark.parametrize('name', CASES)
def test_arguments_are_those_of_its_operator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the operators for CUDA, mmcv's own function for the CPU reads the same arguments."""
    ops = importlib.import_module('mmcv.ops.multi_scale_deform_attn')

    def forward(value: Any, sizes: Any, starts: Any, locations: Any, weights: Any, im2col_step: int) -> torch.Tensor:
        cells = sizes.prod(dim=1).tolist()
        assert starts.tolist() == [sum(cells[:level]) for level in range(len(cells))]
        assert im2col_step == len(value) and value.is_contiguous()
        return ops.multi_scale_deformable_attn_pytorch(value, sizes, locations, weights)

    monkeypatch.setattr(ops.ext_module, 'ms_deform_attn_forward', forward, raising=False)
    value, locations, weights, _ = make(name, torch.float32)
    found = deform_attn_mmcv.mmcv_deform_attn(value, CASES[name][0], locations, weights)
    expected = grid_sample_deform_attn(value, CASES[name][0], locations, weights)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_it_equals_the_reference_on_a_gpu(dtype: torch.dtype) -> None:
    compare('mmcv', dtype, 'cuda')
