"""A detector of mmdetection on these operators: Mask R-CNN trains a step and predicts, in float32 and bfloat16."""

from __future__ import annotations

import functools
import pathlib

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dist import is_distributed
from mmengine.structures import InstanceData

from internvl_dense.openmmlab import ops_fallback

BASE = 'configs/_base_/models/mask-rcnn_r50_fpn.py'
SIDE = 64


@functools.cache
def config() -> Config:
    """mmdetection's own model, with a ResNet-18, 2 classes and few proposals."""
    import mmdet
    from mmdet.utils import register_all_modules

    ops_fallback.require_detection()
    register_all_modules()
    model = Config.fromfile(pathlib.Path(mmdet.__file__).parent / '.mim' / BASE).model
    model.backbone.update(depth=18, init_cfg=None, norm_cfg=dict(type='BN'), frozen_stages=-1, norm_eval=False)
    model.neck.update(in_channels=[64, 128, 256, 512], out_channels=32)
    model.rpn_head.update(in_channels=32, feat_channels=32)
    for head in (model.roi_head.bbox_head, model.roi_head.mask_head):
        head.update(in_channels=32, num_classes=2)
    model.roi_head.bbox_head.fc_out_channels = 32
    model.roi_head.mask_head.conv_out_channels = 32
    model.roi_head.bbox_roi_extractor.out_channels = model.roi_head.mask_roi_extractor.out_channels = 32
    model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
    model.test_cfg.rpn.update(nms_pre=100, max_per_img=50)
    model.test_cfg.rcnn.score_thr = 0.0
    return model


def build() -> torch.nn.Module:
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    torch.manual_seed(0)
    assert not is_distributed()
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(config())


def batch() -> dict[str, list]:
    """Two images with a bright square each."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    inputs, samples = [], []
    for label, (x, y, size) in enumerate([(8, 8, 24), (30, 20, 28)]):
        image, mask = torch.full((3, SIDE, SIDE), 60, dtype=torch.uint8), np.zeros((1, SIDE, SIDE), np.uint8)
        image[:, y:y + size, x:x + size] = 220
        mask[:, y:y + size, x:x + size] = 1
        sample = DetDataSample(metainfo=dict(
            img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0), batch_input_shape=(SIDE, SIDE)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[x, y, x + size, y + size]], dtype=torch.float32), labels=torch.tensor([label]),
            masks=BitmapMasks(mask, SIDE, SIDE))
        inputs.append(image)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_step_and_a_prediction(dtype: torch.dtype) -> None:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    before = {name: value.clone() for name, value in model.named_parameters()}
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        losses = model(**model.data_preprocessor(batch(), True), mode='loss')
        loss = model.parse_losses(losses)[0]
    loss.backward()
    optimizer.step()
    assert {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'} <= losses.keys()
    assert torch.isfinite(loss) and losses['loss_mask'] > 0
    unmoved = [name for name, value in model.named_parameters() if value.equal(before[name])]
    assert not [name for name in unmoved if 'backbone.conv1' in name or 'mask_head' in name and 'weight' in name]
    model.eval()
    with torch.no_grad(), torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        results = model(**model.data_preprocessor(batch(), False), mode='predict')
    found = [result.pred_instances for result in results]
    assert all(len(f) and f.masks.shape == (len(f), SIDE, SIDE) for f in found)
    assert all(torch.isfinite(f.bboxes).all() and (f.scores.diff() <= 0).all() for f in found)
