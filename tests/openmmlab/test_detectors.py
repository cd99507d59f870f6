"""mmdet's detectors around InternViT: sizes, precision of predictions, configs that stay as they are."""

from __future__ import annotations

import copy
import subprocess
import sys
from argparse import Namespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

import internvl_dense.openmmlab.det  # noqa: F401
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.detectors import NAMES, PREDICTORS

SMALL = ['model.backbone.embed_dim=16', 'model.backbone.num_heads=2', 'model.neck.out_channels=8',
         'model.neck.norm_cfg.num_groups=2', 'model.rpn_head.feat_channels=8',
         'model.roi_head.bbox_head.fc_out_channels=8', 'model.roi_head.mask_head.conv_out_channels=8']


@pytest.fixture(scope='module')
def config():
    return load_config(Namespace(config='demo/mask_rcnn_internvit_debug_demo', cfg_options=SMALL)).model


@pytest.fixture(scope='module')
def detector(config):
    torch.manual_seed(0)
    init_default_scope('mmdet')
    model = MODELS.build(config)
    model.init_weights()
    return model.eval()


@pytest.mark.parametrize('name', NAMES)
def test_every_row_is_registered_under_its_own_name(name):
    cls = MODELS.get(f'Dense{name}')
    assert cls.__name__ == f'Dense{name}' and cls.__mro__[2].__name__ == name
    assert getattr(sys.modules[cls.__module__], cls.__name__) is cls  # so that pickle finds it


def test_predictions_leave_heads_in_fp32_under_autocast(detector):
    image = torch.randn(1, 3, 56, 56)
    with torch.autocast('cpu', dtype=torch.bfloat16), torch.no_grad():
        maps = detector.extract_feat(image)
        assert {x.dtype for x in maps} == {torch.bfloat16}  # the layers do run in bf16
        scores, boxes = detector.rpn_head(maps)
        regions = detector.roi_head.bbox_head(torch.randn(2, 8, 7, 7))
        masks = detector.roi_head.mask_head(torch.randn(2, 8, 14, 14))
    assert {x.dtype for x in (*scores, *boxes, *regions, masks)} == {torch.float32}


def test_every_predictor_has_the_hook(detector):
    found = [module for module in detector.modules() if isinstance(module, PREDICTORS)]
    assert len(found) == 3 and all(module._forward_hooks for module in found)


def test_a_config_builds_twice(config):
    before = copy.deepcopy(config)
    dino = load_config(Namespace(config='coco/dino_internvit_6b_224px_coco')).model
    with torch.device('meta'):
        for _ in range(2):
            MODELS.build(config)
            MODELS.build(dino)
    assert config == before


def test_importing_detection_leaves_segmentation_without_mmdet():
    code = ('import sys, internvl_dense.openmmlab; assert not any(n.split(".")[0] == "mmdet" for n in sys.modules); '
            'import internvl_dense.openmmlab.det; assert "mmdet.models" in sys.modules')
    subprocess.run([sys.executable, '-c', code], check=True)
