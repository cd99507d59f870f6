"""What follows from the geometry of a variant, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_dense.backbones.spec import BackboneSpec, WeightsInfo
from internvl_dense.errors import UserError

SPEC = BackboneSpec(name='tiny', embed_dim=48, depth=12, num_heads=3, image_size=70, probe_index=9)


def test_derived_numbers() -> None:
    assert (SPEC.head_dim, SPEC.mlp_dim, SPEC.grid_size) == (16, 192, 5)
    assert SPEC.replace(mlp_ratio=2.5).mlp_dim == 120
    assert SPEC.replace(image_size=83).grid_size == 5
    assert SPEC.num_prefix_tokens == 1
    assert SPEC.replace(num_register_tokens=4).num_prefix_tokens == 5
    assert SPEC.replace(num_register_tokens=4, cls_token=False).num_prefix_tokens == 4


@pytest.mark.parametrize(
    ('depth', 'stages'),
    [(48, (11, 23, 35, 47)), (45, (11, 22, 33, 44)), (24, (5, 11, 17, 23)), (12, (2, 5, 8, 11)), (4, (0, 1, 2, 3))],
)
def test_stages_of_published_depths(depth: int, stages: tuple[int, ...]) -> None:
    assert SPEC.replace(depth=depth).stage_indices == stages


@given(st.integers(5, 200))
def test_stages_increase_and_end_with_the_last_block(depth: int) -> None:
    stages = SPEC.replace(depth=depth).stage_indices
    assert len(stages) == 4
    assert sorted(set(stages)) == list(stages)
    assert stages[-1] == depth - 1


def test_probe_block_is_the_last_one_unless_named() -> None:
    assert SPEC.probe_block == 9
    assert SPEC.replace(probe_index=None).probe_block == 11
    assert SPEC.replace(depth=10).probe_block == 9
    assert SPEC.replace(depth=9).probe_block == 8
    with pytest.raises(UserError, match=r'probe_index 9 is outside 0\.\.8'):
        SPEC.replace(depth=9, probe_index=9)


def test_blocks_that_the_file_has_beyond_the_depth() -> None:
    weights = WeightsInfo(file='a.pth', hf_repo='a/b', licence='MIT', source='test', size_gb=1.0, file_depth=14)
    assert SPEC.dropped_blocks == ()
    assert SPEC.replace(weights=weights).dropped_blocks == (12, 13)


def test_a_spec_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.depth = 3  # type: ignore[misc]
    assert SPEC.replace(depth=11) != SPEC
    assert SPEC.replace() == SPEC


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'num_heads': 7}, 'embed_dim 48 is not a multiple of num_heads 7'),
        ({'depth': 0, 'probe_index': None}, 'depth 0 must be at least 1'),
        ({'patch_size': 0}, 'patch_size 0 must be at least 1'),
        ({'image_size': 13}, 'image_size 13 is smaller than patch_size 14'),
        ({'mlp_ratio': 0.0}, 'mlp_ratio 0.0 must be positive'),
        ({'norm': 'rsm'}, "Unknown norm 'rsm'. Did you mean 'rms'?"),
        ({'mlp': 'swigl'}, "Unknown mlp 'swigl'. Did you mean 'swiglu'?"),
        ({'num_register_tokens': -1}, 'num_register_tokens -1 is negative'),
        ({'qk_nrom': True}, "Unknown backbone option 'qk_nrom'. Did you mean 'qk_norm'?"),
    ],
)
def test_mistakes_are_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        SPEC.replace(**overrides)
    assert message in str(error.value)
    assert "backbone 'tiny': 1 problem" in str(error.value)


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(UserError, match='3 problems') as error:
        SPEC.replace(num_heads=7, mlp='relu', norm='batch')
    assert all(word in str(error.value) for word in ('num_heads 7', "'relu'", "'batch'"))
