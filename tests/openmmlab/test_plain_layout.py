"""Operators of a compiled extension get tensors in rows, and are otherwise left as they are."""

from __future__ import annotations

import types

import torch

from internvl_dense.openmmlab.plain_layout import require_rows


def raw_sum(first, *, other, scale):
    """Reads memory as a compiled kernel does: the first row of what lies there."""
    return [tensor.as_strided((tensor.shape[-1],), (1,)).tolist() for tensor in (first, other)], scale


def test_channels_last_maps_are_read_right():
    extension = types.ModuleType('compiled')
    extension.raw_sum, extension.untouched = raw_sum, raw_sum
    plain = torch.arange(24.0).view(1, 2, 3, 4)
    last = plain.to(memory_format=torch.channels_last)
    assert raw_sum(last, other=last, scale=2) != raw_sum(plain, other=plain, scale=2)  # what goes wrong
    require_rows(extension, ['raw_sum', 'absent'])
    assert extension.raw_sum(last, other=last, scale=2) == raw_sum(plain, other=plain, scale=2)
    assert extension.raw_sum.__name__ == 'raw_sum'
    assert extension.untouched is raw_sum and not hasattr(extension, 'absent')


def test_tensors_in_rows_are_passed_on_themselves_and_wrapping_twice_changes_nothing():
    extension = types.ModuleType('compiled')
    extension.fill = lambda out: out.fill_(1)
    require_rows(extension, ['fill'])
    wrapped, out = extension.fill, torch.zeros(2, 3)
    require_rows(extension, ['fill'])
    assert extension.fill is wrapped
    extension.fill(out)
    assert out.all()
