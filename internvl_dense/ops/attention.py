"""Choice of the attention kernel.

A kernel maps q, k, v of shape (B, H, N, D) (B batch, H heads, N tokens, D channels of a head) to (B, H, N, D): softmax
of the scaled products over the keys, without mask and without dropout.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Protocol

import torch

from internvl_dense.errors import UserError
from internvl_dense.registry import Registry

logger = logging.getLogger('internvl_dense')


class AttentionKernel(Protocol):
    """One kernel: a function and the reason why it cannot run, if there is one."""

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor: ...


class Kernel:
    """A row of the table.

    Args:
        name: Name that users write.
        run: The kernel.
        why_not: Called without arguments, or with the query tensor; returns the reason why the kernel is not usable.
    """

    def __init__(self, name: str, run: AttentionKernel, why_not: Callable[[torch.Tensor | None], str | None]) -> None:
        self.name = name
        self.run = run
        self.why_not = why_not


KERNELS: Registry[Kernel] = Registry('attention kernel')
_FILES = ('sdpa', 'eager', 'flash')
_AUTO_ORDER = ('sdpa', 'eager')  # PyTorch's own dispatcher already reaches the fused kernels
_logged: set[str] = set()


def _load_kernels() -> None:
    for name in _FILES:
        if name not in KERNELS:
            KERNELS.register(name, importlib.import_module(f'internvl_dense.ops.{name}').KERNEL)


def usable_kernels() -> list[str]:
    """Names of the kernels that can run on this machine."""
    _load_kernels()
    return [name for name in KERNELS.list() if KERNELS.get(name).why_not(None) is None]


def get_attention(name: str) -> Kernel:
    """Returns the kernel of that name; 'auto' takes the first usable one and logs it once.

    Raises:
        UserError: No such kernel, or it is not usable here; nothing falls back silently.
    """
    _load_kernels()
    if name == 'auto':
        return _choose()
    kernel = KERNELS.get(name)
    reason = kernel.why_not(None)
    if reason:
        raise UserError(f'attention={name!r} is not usable: {reason}. Usable here: {", ".join(usable_kernels())}.')
    return kernel


def _choose() -> Kernel:
    name = next(name for name in _AUTO_ORDER if KERNELS.get(name).why_not(None) is None)
    if name not in _logged:
        _logged.add(name)
        logger.info("attention='auto' chose %r (usable: %s)", name, ', '.join(usable_kernels()))
    return KERNELS.get(name)
