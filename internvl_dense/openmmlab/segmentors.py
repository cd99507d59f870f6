"""The segmentor: mmseg's EncoderDecoder, sized from its backbone, with fp32 loss and batched windows."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import MODELS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder

from internvl_dense.dense.slide import slide_inference
from internvl_dense.training.precision import LOSS_DTYPE, without_autocast

Config = dict[str, Any]


@MODELS.register_module()
class DenseSegmentor(EncoderDecoder):
    """EncoderDecoder whose neck and heads need no channels in the config: the backbone's `feature_info` gives them.

    Losses are computed in fp32 also under autocast. `test_cfg` takes mmseg's keys and `max_windows`, the number of
    windows in one forward pass of sliding-window inference.
    """

    def __init__(self, backbone: Config, decode_head: Config, neck: Config | None = None, **kwargs: Any) -> None:
        with torch.device('meta'):  # shapes only; the real one is built by the parent
            channels = MODELS.build(backbone).feature_info.channels
        if neck is not None and neck['type'] == 'ViTFeaturePyramid':
            neck = {'channels': channels[0], **neck}
        auxiliary = kwargs.get('auxiliary_head')
        if auxiliary is not None:
            kwargs['auxiliary_head'] = _each(auxiliary, channels)
        super().__init__(backbone=backbone, decode_head=_each(decode_head, channels), neck=neck, **kwargs)

    def slide_inference(self, inputs: torch.Tensor, batch_img_metas: list[Config]) -> torch.Tensor:
        """Mean logits (B, C, H, W) over overlapping windows, run in batches of `test_cfg.max_windows`."""
        def predict(crops: torch.Tensor) -> torch.Tensor:
            # mmseg's heads resize logits to the shape named here.
            metas = [{**batch_img_metas[0], 'img_shape': crops.shape[2:]}] * len(crops)
            logits: torch.Tensor = self.encode_decode(crops, metas)
            return logits

        return slide_inference(
            inputs, predict, self.out_channels, self.test_cfg['crop_size'], self.test_cfg['stride'],
            self.test_cfg.get('max_windows', 8),
        )

    def _decode_head_forward_train(self, inputs: list[torch.Tensor], data_samples: list[Any]) -> Config:
        return self._losses(self.decode_head, 'decode', inputs, data_samples)

    def _auxiliary_head_forward_train(self, inputs: list[torch.Tensor], data_samples: list[Any]) -> Config:
        if not isinstance(self.auxiliary_head, torch.nn.ModuleList):
            return self._losses(self.auxiliary_head, 'aux', inputs, data_samples)
        losses: Config = {}
        for i, head in enumerate(self.auxiliary_head):
            losses.update(self._losses(head, f'aux_{i}', inputs, data_samples))
        return losses

    def _losses(self, head: Any, prefix: str, inputs: list[torch.Tensor], data_samples: list[Any]) -> Config:
        if type(head).loss is BaseDecodeHead.loss:
            logits = head(inputs).to(LOSS_DTYPE)
            with without_autocast(logits.device.type):
                losses = head.loss_by_feat(logits, data_samples)
        else:  # heads with a loss of their own decide for themselves
            losses = head.loss(inputs, data_samples, self.train_cfg)
        return {f'{prefix}.{name}': value for name, value in losses.items()}


def _each(head: Any, channels: tuple[int, ...]) -> Any:
    return [_sized(one, channels) for one in head] if isinstance(head, (list, tuple)) else _sized(head, channels)


def _sized(head: Config, channels: tuple[int, ...]) -> Config:
    """The head's config with `in_channels` taken from the maps that its `in_index` names."""
    if 'in_channels' in head:
        return head
    index = head.get('in_index', -1)
    found = [channels[i] for i in index] if isinstance(index, (list, tuple)) else channels[index]
    return {**head, 'in_channels': found}
