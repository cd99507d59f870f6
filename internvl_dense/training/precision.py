"""Precision of every part of a dense model, in one place.

The trunk runs in the dtype its config names. Maps leave it in fp32, heads hold fp32 weights, and the loss is always
computed in fp32; under autocast the matrix products of heads run in bf16 as well.
"""

from __future__ import annotations

import contextlib

import torch

from internvl_dense.errors import UserError
from internvl_dense.registry import unknown

TRUNK_DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}
HEAD_DTYPE = torch.float32
LOSS_DTYPE = torch.float32
AUTOCAST_DTYPE = torch.bfloat16  # needs no loss scaling, and runs on CPUs


def without_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    """A region that keeps fp32 on devices that know autocast, and does nothing on those that do not (meta)."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()


def trunk_dtype(name: str) -> torch.dtype:
    """The torch dtype behind 'fp32' or 'bf16'.

    Raises:
        UserError: Any other name.
    """
    if name not in TRUNK_DTYPES:
        raise UserError(unknown('dtype', name, TRUNK_DTYPES))
    return TRUNK_DTYPES[name]
