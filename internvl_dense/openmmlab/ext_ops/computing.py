"""In which precision the operators compute, and what holds for each of them."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec('P')
R = TypeVar('R')
# Largest temporary of an operator that works in pieces.
PIECE_BYTES = 64 * 2**20


def widened(x: torch.Tensor) -> torch.Tensor:
    """In the precision an operator computes in: float64 as it is, everything narrower as float32."""
    return x if x.dtype == torch.float64 else x.float()


def single(value: float) -> float:
    """Rounded to float32, as which the compiled operators take every number."""
    return ctypes.c_float(value).value


def operator(function: Callable[P, R]) -> Callable[P, R]:
    """Runs without autocast and without recording: gradients are operators of their own."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        with torch.no_grad(), torch.autocast(tensors[0].device.type, enabled=False):
            return function(*args, **kwargs)

    return run


def pieces(count: int, bytes_each: int) -> range:
    """Starts of pieces of `range(count)`, each of at most `PIECE_BYTES`; the step is the length of a piece."""
    return range(0, count, max(1, PIECE_BYTES // max(1, bytes_each)))
