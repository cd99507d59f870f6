"""The detection configs: real shapes without memory, sizes asked from the backbone, and the rules of their leaves."""

from __future__ import annotations

import pathlib
from argparse import Namespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from internvl_dense.openmmlab.configs import configs_root, load_config
from internvl_dense.openmmlab.launch import build_model_on_meta
from internvl_dense.openmmlab.summary import count_parameters
from tests.configs.test_configs import IMPORT

ROOT = configs_root()
COCO = sorted(f'coco/{path.name}' for path in (ROOT / 'coco').glob('*.py'))
SMALL = sorted(f'{folder}/{path.name}' for folder in ('demo', 'camvid') for path in (ROOT / folder).glob('*rcnn*.py'))
LEAVES = [*COCO, *SMALL]
IMAGES, BATCHES = 117_266, {'adamw_1x': 16, 'adamw_vitdet': 64}
WIDTH = 3200
# Three transposed convolutions of 2 x 2 and one norm, in millions.
PYRAMID_M = (3 * (4 * WIDTH * WIDTH + WIDTH) + 2 * WIDTH) / 1e6


def load(leaf: str) -> Config:
    return load_config(Namespace(config=leaf))


def test_the_detectors_are_there():
    assert [pathlib.Path(leaf).stem.partition('_internvit')[0] for leaf in COCO] == [
        'cascade_mask_rcnn', 'dino', 'mask_rcnn', 'vitdet']


@pytest.mark.parametrize('leaf', LEAVES)
def test_detector_builds_without_memory_sized_by_its_backbone(leaf):
    config = load(leaf)
    model = build_model_on_meta(config)
    assert all(p.device.type == 'meta' for p in model.backbone.parameters())
    patch, info = model.backbone.spec.patch_size, model.backbone.feature_info
    if hasattr(model, 'rpn_head'):
        strides = [pair[0] for pair in model.rpn_head.prior_generator.strides]
        assert strides[:4] == [patch / 4, patch / 2, patch, 2 * patch] or leaf.find('adapter') >= 0
        extractors = model.roi_head.bbox_roi_extractor
        first = extractors[0] if isinstance(extractors, torch.nn.ModuleList) else extractors
        assert list(first.featmap_strides) == strides[:4]
    assert all(width == model.backbone.spec.embed_dim for width in info.channels)
    head = model.roi_head.bbox_head if hasattr(model, 'roi_head') else model.bbox_head
    first = head[0] if isinstance(head, torch.nn.ModuleList) else head
    assert first.num_classes == config.num_classes


def test_frozen_mask_rcnn_trains_the_published_parts():
    """FPN, RPN and RoI heads of 23.2 M and the pyramid's transposed convolutions; never the trunk."""
    model = build_model_on_meta(load('coco/mask_rcnn_internvit_6b_224px_coco'))
    _, trainable = count_parameters(model, without=())
    assert trainable / 1e6 == pytest.approx(PYRAMID_M + 23.2, abs=0.1)
    assert not any(p.requires_grad for p in model.backbone.blocks.parameters())


@pytest.mark.parametrize('leaf', LEAVES)
def test_leaf_is_short_and_opens_with_result_and_arithmetic(leaf):
    text = (ROOT / leaf).read_text()
    comment = ' '.join(line for line in text.splitlines() if line.startswith('#'))
    assert len(text.splitlines()) <= 15
    assert 'AP' in comment and 'iterations' in comment and 'images' in comment and f'configs/{leaf}' in comment
    assert pathlib.Path(leaf).stem.endswith(pathlib.Path(leaf).parts[0])
    assert load(leaf).model.backbone.variant in leaf
    assert not IMPORT.search(text)


@pytest.mark.parametrize('leaf', COCO)
def test_no_ap_is_claimed_where_none_is_published(leaf):
    assert load(leaf).published == 'No AP published'
    assert 'no AP published' in (ROOT / leaf).read_text().splitlines()[0]


@pytest.mark.parametrize('leaf', COCO)
def test_iterations_are_the_epochs_that_the_header_says(leaf):
    config = load(leaf)
    batch = config.auto_scale_lr.base_batch_size
    epochs = 100 if 'vitdet' in leaf else 12
    assert config.train_cfg.max_iters == epochs * -(-IMAGES // batch)
    assert f'{config.train_cfg.max_iters:,} iterations = {epochs} epochs' in (ROOT / leaf).read_text()


@pytest.mark.parametrize('leaf', LEAVES)
def test_mmdet_builds_the_model_itself(leaf):
    config = Config.fromfile(ROOT / leaf)
    init_default_scope(config.default_scope)
    from mmdet.registry import MODELS

    with torch.device('meta'):
        model = MODELS.build(config.model)
    assert type(model).__name__ == config.model.type


def test_mask2former_weighs_each_class_and_no_object():
    config = load('ade20k/mask2former_internvit_6b_224px_ade20k')
    assert len(config.model.decode_head.loss_cls.class_weight) == config.num_classes + 1
    model = build_model_on_meta(config)
    assert model.decode_head.cls_embed.weight.shape[0] == config.num_classes + 1
