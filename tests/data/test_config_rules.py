from __future__ import annotations

from typing import Any

import pytest

from internvl_dense.data.config_rules import GEOMETRY_RULES, check_geometry


def messages(**options: Any) -> list[str]:
    defaults: dict[str, Any] = {'crop_size': (504, 504), 'patch_size': 14, 'stride': (322, 322)}
    return [f'{problem.rule}: {problem.message}' for problem in check_geometry(**{**defaults, **options})]


def test_good_numbers_have_no_problems() -> None:
    assert messages() == []
    assert messages(crop_size=(252, 336), stride=None) == []
    assert messages(stride=(504, 504)) == []
    assert messages(batch_per_gpu=1) == []


def test_a_crop_between_patches_names_both_neighbours_and_the_other_patch_size() -> None:
    assert messages(crop_size=(512, 512)) == [
        'crop_not_patches: crop_size (512, 512) is not a multiple of patch_size 14; nearest: (504, 504) or (518, 518). '
        'Or set patch_size=16 to resample the patch embedding.'
    ]


def test_each_side_counts_for_itself() -> None:
    [message] = messages(crop_size=(504, 511), stride=None)
    assert 'nearest: (504, 504) or (504, 518).' in message
    assert 'patch_size=' not in message


def test_a_crop_smaller_than_a_patch() -> None:
    assert messages(crop_size=(10, 504), stride=None) == [
        'crop_below_patch: crop_size (10, 504) is smaller than one patch of 14.'
    ]


def test_a_stride_larger_than_the_crop() -> None:
    [message] = messages(stride=(504, 505))
    assert message.startswith('stride_above_crop: stride (504, 505)')
    assert '(336, 336)' in message


@pytest.mark.parametrize(
    ('options', 'refused'),
    [
        ({'batch_per_gpu': 1, 'norm': 'BN'}, True),
        ({'batch_per_gpu': 1, 'norm': 'BN', 'num_gpus': 8}, True),
        ({'batch_per_gpu': 1, 'norm': 'SyncBN'}, True),
        ({'batch_per_gpu': 1, 'norm': 'SyncBN', 'num_gpus': 2}, False),
        ({'batch_per_gpu': 2, 'norm': 'BN'}, False),
        ({'batch_per_gpu': 1, 'norm': 'GN'}, False),
    ],
)
def test_one_value_per_channel(options: dict[str, Any], refused: bool) -> None:
    found = messages(**options, pools_to_one=True)
    assert [message.split(':')[0] for message in found] == ['one_value_per_channel'] * refused
    assert messages(**options, pools_to_one=False) == []


def test_zeros_and_negatives_are_all_listed() -> None:
    found = messages(crop_size=(0, 504), patch_size=0, stride=(0, 1), batch_per_gpu=-1, num_gpus=0)
    assert [message.split(' holds ')[0] for message in found] == [
        f'not_positive: {name}' for name in ('crop_size', 'patch_size', 'stride', 'batch_per_gpu', 'num_gpus')
    ]


def test_every_rule_says_what_it_checks() -> None:
    assert all(rule.checks.endswith('.') for rule in GEOMETRY_RULES)
