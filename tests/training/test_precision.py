"""The precision of each part is declared once and reaches the parts."""

from __future__ import annotations

import pytest
import torch

from internvl_dense.errors import UserError
from internvl_dense.training import precision


@pytest.mark.parametrize(('name', 'dtype'), [('fp32', torch.float32), ('bf16', torch.bfloat16)])
def test_names_of_trunk_dtypes(name: str, dtype: torch.dtype) -> None:
    assert precision.trunk_dtype(name) is dtype


@pytest.mark.parametrize(('name', 'hint'), [('bfloat16', 'bf16'), ('fp16', 'bf16'), ('', 'bf16, fp32')])
def test_other_names_are_refused_with_the_known_ones(name: str, hint: str) -> None:
    with pytest.raises(UserError) as error:
        precision.trunk_dtype(name)
    assert f'Unknown dtype {name!r}' in str(error.value)
    assert hint in str(error.value)


def test_heads_and_losses_are_fp32_and_autocast_needs_no_loss_scaling() -> None:
    assert precision.HEAD_DTYPE is precision.LOSS_DTYPE is torch.float32
    # As wide as fp32 in its exponent, so gradients cannot underflow.
    assert torch.finfo(precision.AUTOCAST_DTYPE).max > 1e38
