"""Kernels of deformable attention: the definition, every usable kernel against the reference, how one is chosen."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import pathlib
import subprocess
import sys

import pytest
import torch

from internvl_dense.errors import UserError
from internvl_dense.ops import deform_attn
from internvl_dense.ops.deform_attn import DEFORM_KERNELS, get_deform_attn, load_kernels, usable_deform_kernels
from internvl_dense.ops.deform_attn_grid_sample import grid_sample_deform_attn
from tests.ops.deform_attn_cases import CASES, SHAPES, compare, compare_half, make

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEEDS_TRITON = pytest.mark.skipif(importlib.util.find_spec('triton') is None, reason='triton is not installed')
NO_TRITON = pytest.mark.skipif(importlib.util.find_spec('triton') is not None, reason='triton is installed')
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')

load_kernels()


def bilinear(image: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Value of an (h, w, D) map at (x, y) in cells, cell centres at whole numbers, zeros outside."""
    total = torch.zeros_like(image[0, 0])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total = total + (1 - abs(y - row)) * (1 - abs(x - column)) * image[row, column]
    return total


def test_reference_is_the_definition() -> None:
    value, locations, weights, _ = make('injector')
    out = grid_sample_deform_attn(value, SHAPES, locations, weights)
    maps = value.split([height * width for height, width in SHAPES], dim=1)
    for image, query, head in ((0, 0, 0), (1, 16, 2), (1, 7, 1)):
        expected = torch.zeros(value.shape[3], dtype=torch.float64)
        for level, (height, width) in enumerate(SHAPES):
            one = maps[level][image, :, head].unflatten(0, (height, width))
            for point in range(weights.shape[4]):
                x, y = locations[image, query, head, level, point].tolist()
                sample = bilinear(one, x * width - 0.5, y * height - 0.5)
                expected += weights[image, query, head, level, point] * sample
        width = value.shape[3]
        torch.testing.assert_close(out[image, query, head * width:(head + 1) * width], expected, atol=1e-12, rtol=0)


def test_reference_gradients_are_those_of_finite_differences() -> None:
    value, locations, weights, _ = make('extractor')
    inputs = [one.requires_grad_() for one in (value[:, :, :1, :2], locations[:, :3, :1], weights[:, :3, :1])]
    assert torch.autograd.gradcheck(lambda v, p, w: grid_sample_deform_attn(v, CASES['extractor'][0], p, w), inputs)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('kernel', usable_deform_kernels(torch.zeros(1)))
def test_every_kernel_equals_the_reference(kernel: str, dtype: torch.dtype) -> None:
    compare(kernel, dtype)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_added_up_in_fp32(dtype: torch.dtype) -> None:
    compare_half('grid_sample', dtype)


def program(name: str, **environment: str) -> str:
    script = ROOT / 'tests' / 'ops' / f'{name}.py'
    variables = {**os.environ, 'PYTHONPATH': str(ROOT), **environment}
    result = subprocess.run([sys.executable, str(script)], env=variables, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


@NEEDS_TRITON
def test_triton_kernels_equal_the_reference_in_its_interpreter() -> None:
    assert program('deform_attn_cases', TRITON_INTERPRET='1').endswith('equal\n')


@NEEDS_TRITON
def test_triton_kernels_compile_for_a_gpu(tmp_path: pathlib.Path) -> None:
    found = program('deform_attn_compiled', TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET='0')
    assert found.endswith('compiled\n')


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize('kernel', usable_deform_kernels())
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_every_kernel_on_a_gpu(kernel: str, dtype: torch.dtype) -> None:
    compare(kernel, dtype, 'cuda')


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('kernel', ['triton', 'grid_sample'])
def test_half_precision_on_a_gpu(kernel: str, dtype: torch.dtype) -> None:
    compare_half(kernel, dtype, 'cuda')


def test_unknown_kernel() -> None:
    with pytest.raises(UserError, match="Unknown deformable attention kernel 'tritn'. Did you mean 'triton'?"):
        get_deform_attn('tritn')


@NO_TRITON
def test_asking_for_triton_without_the_package_says_why_and_what_else() -> None:
    with pytest.raises(UserError) as error:
        get_deform_attn('triton')
    assert str(error.value) == ("deform_attention='triton' is not usable: triton is not installed (PyTorch for CUDA "
                                "brings it). Usable here: grid_sample.")


@NEEDS_TRITON
def test_triton_refuses_tensors_on_the_cpu() -> None:
    value, locations, weights, _ = make('one')
    with pytest.raises(UserError, match=r'needs a floating-point tensor on a CUDA device, got torch.float64 on cpu. '
                                        'Usable for it: grid_sample'):
        DEFORM_KERNELS.get('triton').run(value, CASES['one'][0], locations, weights)


def test_auto_chooses_for_each_tensor_and_logs_it_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(deform_attn, '_logged', set())
    value, locations, weights, _ = make('injector')
    with caplog.at_level(logging.INFO, logger='internvl_dense'):
        found = [get_deform_attn('auto').run(value, SHAPES, locations, weights) for _ in range(3)]
    assert torch.equal(found[0], grid_sample_deform_attn(value, SHAPES, locations, weights))
    assert caplog.messages == ["deform_attention='auto' chose 'grid_sample' on cpu (usable: grid_sample)"]


def test_what_does_not_belong_together_is_told_at_once() -> None:
    value, locations, weights, _ = make('injector')
    with pytest.raises(UserError) as error:
        get_deform_attn('grid_sample').run(value[:, 1:], SHAPES, locations[:, :, :2], weights)
    assert 'deformable attention: 3 problems' in str(error.value)
    assert 'value has 48 tokens, the maps [(5, 7), (3, 4), (1, 2)] have 49 cells' in str(error.value)
