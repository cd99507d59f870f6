"""The segmentor: sizes from the backbone, fp32 losses, windows in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample

import internvl_dense.openmmlab  # noqa: F401  registers the segmentor
from internvl_dense.training.sync_bn import SyncBatchNorm32

BACKBONE = {'type': 'InternViT', 'variant': 'internvit_debug', 'weights': 'random', 'embed_dim': 8, 'num_heads': 2,
            'image_size': 28}
LOSS = {'type': 'CrossEntropyLoss', 'avg_non_ignore': True}
LINEAR = {'type': 'LinearHead', 'num_classes': 3, 'loss_decode': LOSS}
FCN = {'type': 'FCNHead', 'num_classes': 3, 'channels': 4, 'num_convs': 1, 'in_index': 2,
       'norm_cfg': {'type': 'SyncBN'}, 'loss_decode': {**LOSS, 'loss_weight': 0.4}}
UPER = {'type': 'UPerHead', 'num_classes': 3, 'channels': 4, 'in_index': [0, 1, 2, 3], 'pool_scales': (1, 2),
        'norm_cfg': {'type': 'SyncBN'}, 'dropout_ratio': 0.0, 'loss_decode': LOSS}
PYRAMID = {'type': 'ViTFeaturePyramid'}


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    init_default_scope('mmseg')
    yield


@MODELS.register_module(name='HeadWithItsOwnLoss')
class HeadWithItsOwnLoss(FCNHead):
    """A head that computes its loss by itself, as Mask2Former does."""

    def loss(self, inputs: Any, batch_data_samples: Any, train_cfg: Any) -> dict[str, torch.Tensor]:
        return {'loss_own': self(inputs).sum() * 0 + 7}


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict({
        'type': 'DenseSegmentor', 'backbone': BACKBONE, 'decode_head': LINEAR, 'train_cfg': {},
        'test_cfg': {'mode': 'whole'}, **options}))
    model.init_weights()
    return model


def samples(count: int, size: tuple[int, int] = (28, 28)) -> list[SegDataSample]:
    label = torch.randint(0, 3, (count, 1, *size), generator=torch.Generator().manual_seed(0))
    label[:, :, :3] = 255
    meta = {'img_shape': size, 'ori_shape': size, 'pad_shape': size}
    return [SegDataSample(gt_sem_seg=PixelData(data=one), metainfo=meta) for one in label]


def images(count: int = 2, size: tuple[int, int] = (28, 28)) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def test_a_head_on_one_map_is_as_wide_as_the_backbone() -> None:
    model = build()
    assert (model.decode_head.in_channels, model.decode_head.channels) == (8, 8)
    assert model.decode_head.conv_seg.weight.shape == (3, 8, 1, 1)
    assert isinstance(model.decode_head.norm, SyncBatchNorm32)
    assert not model.with_neck and not model.with_auxiliary_head


def test_neck_and_heads_of_many_maps_are_sized_from_the_backbone() -> None:
    model = build(neck=PYRAMID, decode_head=UPER, auxiliary_head=FCN)
    assert model.neck.channels == 8
    assert model.decode_head.in_channels == [8] * 4
    assert model.auxiliary_head.in_channels == 8
    wider = build(backbone={**BACKBONE, 'embed_dim': 16}, neck=PYRAMID, decode_head=UPER)
    assert wider.decode_head.in_channels == [16] * 4


def test_channels_in_a_config_are_kept() -> None:
    assert build(decode_head={**LINEAR, 'in_channels': 8}).decode_head.in_channels == 8
    with pytest.raises(RuntimeError):
        build(decode_head={**LINEAR, 'in_channels': 16}).eval()(images())


def test_a_config_is_not_changed_by_building() -> None:
    config = Config({'type': 'DenseSegmentor', 'backbone': BACKBONE, 'neck': PYRAMID, 'decode_head': UPER,
                     'auxiliary_head': [FCN, FCN], 'train_cfg': {}, 'test_cfg': {'mode': 'whole'}})
    before = config.pretty_text
    model = MODELS.build(config)
    assert config.pretty_text == before
    assert [head.in_channels for head in model.auxiliary_head] == [8, 8]


def test_losses_of_all_heads() -> None:
    model = build(neck=PYRAMID, decode_head=UPER, auxiliary_head=FCN).train()
    losses = model(images(), samples(2), mode='loss')
    assert losses.keys() == {'decode.loss_ce', 'decode.acc_seg', 'aux.loss_ce', 'aux.acc_seg'}
    total, _ = model.parse_losses(losses)
    total.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    several = build(neck=PYRAMID, decode_head=UPER, auxiliary_head=[FCN, FCN]).train()
    assert {'aux_0.loss_ce', 'aux_1.loss_ce'} <= several(images(), samples(2), mode='loss').keys()


def test_the_loss_is_cross_entropy_over_labelled_pixels() -> None:
    model, data = build().train(), samples(2)
    loss = model(images(), data, mode='loss')['decode.loss_ce']
    logits = build().train()(images())
    logits = F.interpolate(logits, (28, 28), mode='bilinear', align_corners=False)
    label = torch.cat([one.gt_sem_seg.data for one in data])
    torch.testing.assert_close(loss, F.cross_entropy(logits, label, ignore_index=255), atol=1e-6, rtol=0)


def test_losses_are_fp32_under_autocast() -> None:
    model = build(neck=PYRAMID, decode_head=UPER, auxiliary_head=FCN).train()
    seen = []
    for head in (model.decode_head, model.auxiliary_head):
        head.loss_decode.register_forward_pre_hook(
            lambda module, args: seen.append((args[0].dtype, torch.is_autocast_enabled('cpu'))))
    products = []
    model.decode_head.conv_seg.register_forward_hook(lambda module, args, output: products.append(output.dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model(images(), samples(2), mode='loss')
    assert seen == [(torch.float32, False)] * 2
    assert products == [torch.bfloat16]  # the head itself does run under autocast
    assert losses['decode.loss_ce'].dtype == losses['aux.loss_ce'].dtype == torch.float32


def test_a_head_with_a_loss_of_its_own_is_asked() -> None:
    model = build(decode_head={**FCN, 'type': 'HeadWithItsOwnLoss'}).train()
    assert model(images(), samples(2), mode='loss')['decode.loss_own'] == 7


def test_a_frozen_trunk_stays_in_eval_mode_and_gets_no_gradient() -> None:
    model = build(backbone={**BACKBONE, 'frozen': True, 'out_indices': 'probe'}).train()
    assert not model.backbone.training
    assert model.decode_head.training
    model.parse_losses(model(images(), samples(2), mode='loss'))[0].backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {'decode_head.norm.weight', 'decode_head.norm.bias', 'decode_head.conv_seg.weight',
                       'decode_head.conv_seg.bias'}


SLIDE = {'mode': 'slide', 'crop_size': (28, 28), 'stride': (14, 21)}


@pytest.mark.parametrize('size', [(42, 70), (28, 28), (30, 45)])
def test_windows_in_batches_give_what_mmseg_computes_one_by_one(size: tuple[int, int]) -> None:
    model = build(test_cfg=SLIDE).eval()
    metas = [one.metainfo for one in samples(2, size)]
    with torch.no_grad():
        ours = model.slide_inference(images(2, size), metas)
        theirs = EncoderDecoder.slide_inference(model, images(2, size), metas)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(('max_windows', 'batches'), [({}, [8, 4]), ({'max_windows': 5}, [5, 5, 2])])
def test_size_of_the_batches(max_windows: dict[str, int], batches: list[int]) -> None:
    model = build(test_cfg={**SLIDE, **max_windows}).eval()
    seen: list[int] = []
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    with torch.no_grad():  # two images of 2 x 3 windows
        model.slide_inference(images(2, (42, 70)), [one.metainfo for one in samples(2, (42, 70))])
    assert seen == batches


@pytest.mark.parametrize('test_cfg', [{'mode': 'whole'}, SLIDE], ids=['whole', 'slide'])
def test_predictions_have_the_size_of_the_original_image(test_cfg: dict[str, Any]) -> None:
    model = build(test_cfg=test_cfg).eval()
    data = samples(1, (42, 56))
    data[0].set_metainfo({'ori_shape': (33, 47)})
    with torch.no_grad():
        [result] = model(images(1, (42, 56)), data, mode='predict')
    assert result.pred_sem_seg.data.shape == (1, 33, 47)
    assert result.seg_logits.data.shape == (3, 33, 47)
    assert set(result.pred_sem_seg.data.unique().tolist()) <= {0, 1, 2}


def test_a_window_as_large_as_the_image_is_whole_inference() -> None:
    whole = build().eval()
    slide = build(test_cfg={'mode': 'slide', 'crop_size': (42, 56), 'stride': (28, 28)}).eval()
    metas = [samples(1, (42, 56))[0].metainfo]
    with torch.no_grad():
        assert torch.equal(whole.inference(images(1, (42, 56)), metas), slide.inference(images(1, (42, 56)), metas))


def test_the_reference_demo_trains_a_step(demo_config: Callable[..., Config]) -> None:
    model = MODELS.build(demo_config().model)
    model.init_weights()
    batch = {'inputs': [torch.randint(0, 256, (3, 140, 140), dtype=torch.uint8)] * 2,
             'data_samples': samples(2, (140, 140))}
    data = model.data_preprocessor(batch, training=True)
    loss, _ = model.parse_losses(model.train()(**data, mode='loss'))
    assert loss.isfinite()
