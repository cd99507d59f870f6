"""Every attention kernel against the one that is spelled out, and how one is chosen."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import pytest
import torch

from internvl_dense.errors import UserError
from internvl_dense.ops import attention, flash
from internvl_dense.ops.attention import KERNELS, get_attention, usable_kernels
from internvl_dense.ops.eager import eager_attention

FP32 = {'atol': 1e-6, 'rtol': 1e-6}
BF16 = {'atol': 3e-2, 'rtol': 3e-2}
SHAPES = [(2, 3, 7, 8), (1, 2, 1, 4), (1, 1, 33, 16)]
SCALE = 0.3


def run(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Output and the gradients of q, k, v."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, weight = (torch.randn(shape, generator=generator) for _ in range(4))
    inputs = [part.to(dtype).requires_grad_() for part in (q, k, v)]
    out = get_attention(name).run(*inputs, scale=SCALE)
    (out.float() * weight).sum().backward()
    return (out, *(part.grad for part in inputs))


def on_this_machine(names: list[str]) -> list[str]:
    """Kernels that run on a CPU; those for other devices say so when they are called."""
    return [name for name in names if KERNELS.get(name).why_not(torch.zeros(1)) is None]


def test_eager_is_the_definition() -> None:
    q, k, v = (torch.randn(2, 3, 5, 4) for _ in range(3))
    out = eager_attention(q, k, v, SCALE)
    weights = torch.exp(SCALE * q[1, 2, 3] @ k[1, 2].T)
    torch.testing.assert_close(out[1, 2, 3], (weights / weights.sum()) @ v[1, 2], **FP32)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', on_this_machine(usable_kernels()))
def test_every_kernel_equals_eager_in_fp32(name: str, shape: tuple[int, ...]) -> None:
    for ours, expected in zip(run(name, shape, torch.float32), run('eager', shape, torch.float32), strict=True):
        torch.testing.assert_close(ours, expected, **FP32)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', on_this_machine(usable_kernels()))
def test_every_kernel_is_near_fp32_in_bf16(name: str, shape: tuple[int, ...]) -> None:
    for ours, expected in zip(run(name, shape, torch.bfloat16), run('eager', shape, torch.float32), strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.float(), expected, **BF16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('name', usable_kernels())
def test_every_kernel_on_a_gpu(name: str) -> None:
    q, k, v = (torch.randn(2, 3, 70, 64, device='cuda') for _ in range(3))
    half = [part.bfloat16() for part in (q, k, v)]
    out = get_attention(name).run(*half, scale=0.125).float()
    torch.testing.assert_close(out, eager_attention(q, k, v, 0.125), **BF16)


def test_unknown_kernel() -> None:
    with pytest.raises(UserError, match="Unknown attention kernel 'spda'. Did you mean 'sdpa'?"):
        get_attention('spda')


@pytest.mark.skipif(importlib.util.find_spec(flash.PACKAGE) is not None, reason='flash-attn is installed')
def test_asking_for_flash_without_the_package_says_why_and_what_else() -> None:
    assert 'flash' not in usable_kernels()
    with pytest.raises(UserError) as error:
        get_attention('flash')
    assert str(error.value) == ("attention='flash' is not usable: flash-attn 2.x is not installed (pip install "
                                "flash-attn). Usable here: sdpa, eager.")


def test_flash_refuses_other_versions_devices_and_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = object()
    monkeypatch.setattr(flash.importlib.util, 'find_spec', lambda name: found)
    monkeypatch.setattr(flash.importlib.metadata, 'version', lambda name: '3.0.1')
    assert KERNELS.get('flash').why_not(None) == 'flash-attn 3.0.1 is installed, 2.x is needed'
    monkeypatch.setattr(flash.importlib.metadata, 'version', lambda name: '2.8.0')
    assert KERNELS.get('flash').why_not(None) is None
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(UserError, match='it needs fp16 or bf16 on a CUDA device, got torch.float32 on cpu'):
        get_attention('flash').run(q, q, q, scale=1.0)


def test_auto_chooses_once_and_logs_it_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(attention, '_logged', set())
    with caplog.at_level(logging.INFO, logger='internvl_dense'):
        assert {get_attention('auto').name for _ in range(3)} == {'sdpa'}
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith("attention='auto' chose 'sdpa' (usable: sdpa, eager")
