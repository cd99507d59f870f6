"""Which blocks get windows, and what is said of options that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.backbones.windows import resolve_windows, window_faults

SPEC = BackboneSpec(name='tiny', embed_dim=16, depth=8, num_heads=2, image_size=28)


@pytest.mark.parametrize(
    ('window_size', 'global_blocks', 'expected'),
    [
        (None, (), (None,) * 8),
        (14, (), (14,) * 8),
        ([4, None, 3, 5, None, 1, 2, 16], (), (4, None, 3, 5, None, 1, 2, 16)),
        ((2,) * 8, [], (2,) * 8),
        (14, 'stages', (14, None, 14, None, 14, None, 14, None)),
        (14, [0, -1], (None, *(14,) * 6, None)),
        (14, range(8), (None,) * 8),
    ],
)
def test_one_side_for_all_a_list_or_global_blocks(window_size: Any, global_blocks: Any, expected: Any) -> None:
    assert window_faults(SPEC, window_size, global_blocks) == []
    assert resolve_windows(SPEC, window_size, global_blocks) == expected


def test_the_last_block_of_each_stage_is_global() -> None:
    windows = resolve_windows(SPEC.replace(depth=24), 16, 'stages')
    assert [index for index, window in enumerate(windows) if window is None] == [5, 11, 17, 23]


@pytest.mark.parametrize(
    ('window_size', 'global_blocks', 'faults'),
    [
        (0, (), ['window_size 0 must be a whole number of tokens from 1, None (global) or a list']),
        (14.0, (), ['window_size 14.0 must be']),
        (True, (), ['window_size True must be']),
        ('14', (), ["window_size '14' must be"]),
        ([4, 4], (), ['window_size lists 2 blocks, tiny has 8; give one entry for each block']),
        ([4, 0, -1, None, 2.5, 1, 1, True], (), ['window_size 0 of block 1', '-1 of block 2', '2.5 of block 4',
                                                 'True of block 7']),
        ([0] * 7, (), ['lists 7 blocks', *(f'window_size 0 of block {index}' for index in range(7))]),
        (14, 'stage', ["Unknown global_blocks 'stage'. Did you mean 'stages'? Or give a list of block numbers."]),
        (14, 3, ['Unknown global_blocks 3.']),
        (14, [0, 8, -9, 'x'], ["global_blocks [8, -9, 'x']: tiny has blocks 0..7"]),
        (None, 'stages', ["global_blocks 'stages' needs one number as window_size"]),
        ([4] * 8, [1], ['global_blocks [1] needs one number as window_size']),
        (-1, [99], ['window_size -1', 'global_blocks [99]']),
    ],
)
def test_all_faults_are_named(window_size: Any, global_blocks: Any, faults: list[str]) -> None:
    found = window_faults(SPEC, window_size, global_blocks)
    assert len(found) == len(faults), found
    for message, start in zip(found, faults, strict=True):
        assert start in message
