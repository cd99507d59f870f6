"""What a detector's config leaves open comes from the backbone; what it states stays."""

from __future__ import annotations

import copy

import pytest

import internvl_dense.openmmlab.det  # noqa: F401
from internvl_dense.backbones.internvit import FeatureInfo
from internvl_dense.openmmlab.detector_configs import complete_detector, neck_strides

INFO = FeatureInfo((3, 3, 3, 3), (48,) * 4, (3.5, 7, 14, 28))
RPN = {'type': 'RPNHead', 'anchor_generator': {'type': 'AnchorGenerator', 'scales': [8], 'ratios': [1.0]}}
ROI = {
    'type': 'StandardRoIHead', 'bbox_roi_extractor': {'type': 'SingleRoIExtractor'},
    'bbox_head': {'type': 'Shared2FCBBoxHead'}, 'mask_roi_extractor': {'type': 'SingleRoIExtractor'},
    'mask_head': {'type': 'FCNMaskHead'},
}
FPN = {'type': 'FPN', 'out_channels': 16, 'num_outs': 5}


def test_two_stage_detector_is_sized():
    given = {'neck': FPN, 'rpn_head': RPN, 'roi_head': ROI, 'data_preprocessor': {'type': 'DetDataPreprocessor'}}
    before = copy.deepcopy(given)
    filled = complete_detector(given, INFO, num_classes=7)
    assert given == before
    assert filled['neck']['in_channels'] == [48] * 4
    assert filled['rpn_head']['anchor_generator']['strides'] == [3.5, 7, 14, 28, 56]
    assert filled['rpn_head']['in_channels'] == 16 and 'num_classes' not in filled['rpn_head']
    for part in ('bbox', 'mask'):
        extractor = filled['roi_head'][f'{part}_roi_extractor']
        assert (extractor['featmap_strides'], extractor['out_channels']) == ([3.5, 7, 14, 28], 16)
        head = filled['roi_head'][f'{part}_head']
        assert (head['in_channels'], head['num_classes']) == (16, 7)
    assert filled['data_preprocessor']['pad_size_divisor'] == 28


def test_what_a_config_states_stays():
    stated = {
        'neck': {**FPN, 'in_channels': [1]}, 'roi_head': {**ROI, 'bbox_head': {**ROI['bbox_head'], 'num_classes': 3}},
        'rpn_head': {**RPN, 'in_channels': 5}, 'data_preprocessor': {'type': 'X', 'pad_size_divisor': 1}}
    filled = complete_detector(stated, INFO, num_classes=7)
    assert filled['neck']['in_channels'] == [1] and filled['rpn_head']['in_channels'] == 5
    assert filled['roi_head']['bbox_head']['num_classes'] == 3
    assert filled['data_preprocessor']['pad_size_divisor'] == 1


def test_stages_of_a_cascade_are_filled_one_by_one():
    roi = {**ROI, 'type': 'CascadeRoIHead', 'bbox_head': [ROI['bbox_head'], {**ROI['bbox_head'], 'in_channels': 9}]}
    heads = complete_detector({'neck': FPN, 'roi_head': roi}, INFO, num_classes=2)['roi_head']['bbox_head']
    assert [head['in_channels'] for head in heads] == [16, 9]


@pytest.mark.parametrize(('kind', 'expected'), [
    ('FCOSHead', {'in_channels': 16, 'strides': [3.5, 7, 14, 28, 56], 'num_classes': 2}),
    ('DINOHead', {'num_classes': 2}),  # reads queries, not maps
])
def test_one_stage_heads(kind, expected):
    head = complete_detector({'neck': FPN, 'bbox_head': {'type': kind}}, INFO, num_classes=2)['bbox_head']
    assert head == {'type': kind, **expected}


def test_levels_of_a_neck():
    assert neck_strides({'type': 'FPN', 'start_level': 1, 'num_outs': 5}, [4, 8, 16, 32]) == [8, 16, 32, 64, 128]
    assert neck_strides({'type': 'SimpleFeaturePyramid', 'num_outs': 5}, [16]) == [4, 8, 16, 32, 64]
    assert neck_strides({'type': 'ChannelMapper'}, [4, 8]) == [4, 8]
