"""The segmentor: mmseg's EncoderDecoder, sized from its backbone, with fp32 loss and batched windows."""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from mmengine.registry import MODELS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder

from internvl_dense.dense.slide import slide_inference
from internvl_dense.openmmlab.adapters import complete_backbone
from internvl_dense.openmmlab.head_configs import complete_heads
from internvl_dense.training.numerics import AUXILIARY_INDEX, FAST, get_numerics
from internvl_dense.training.precision import HEAD_DTYPE, LOSS_DTYPE, without_autocast

Config = dict[str, Any]


@MODELS.register_module()
class DenseSegmentor(EncoderDecoder):
    """EncoderDecoder whose neck and heads need no channels in the config: the backbone's `feature_info` gives them.

    Losses are computed in fp32 also under autocast. `test_cfg` takes mmseg's keys and `max_windows`, the number of
    windows in one forward pass of sliding-window inference. `numerics` is a row of
    `internvl_dense.training.numerics`: it fills in what the configs of the heads leave open.
    """

    def __init__(
        self, backbone: Config, decode_head: Config, neck: Config | None = None, numerics: str = FAST.name,
        **kwargs: Any,
    ) -> None:
        chosen = get_numerics(numerics)
        backbone = complete_backbone(backbone, chosen)
        with torch.device('meta'):  # shapes only; the real one is built by the parent
            channels = MODELS.build(backbone).feature_info.channels
        if neck is not None and neck['type'] == 'ViTFeaturePyramid':
            neck = {'channels': channels[0], **neck}
        auxiliary = kwargs.get('auxiliary_head')
        if auxiliary is not None:
            index = chosen.frozen_auxiliary_index if backbone.get('frozen') else AUXILIARY_INDEX
            kwargs['auxiliary_head'] = complete_heads(auxiliary, channels, chosen, in_index=index)
        head = complete_heads(decode_head, channels, chosen)
        with warnings.catch_warnings():
            # mmseg recommends the other mean at every start; here it is a named choice.
            warnings.filterwarnings('ignore', message='Default ``avg_non_ignore`` is False')
            super().__init__(backbone=backbone, decode_head=head, neck=neck, **kwargs)
        self.numerics = chosen

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
            logits = self._in_head_precision(head, inputs).to(LOSS_DTYPE)
            with without_autocast(logits.device.type):
                losses = head.loss_by_feat(logits, data_samples)
        else:  # heads with a loss of their own decide for themselves
            losses = head.loss(inputs, data_samples, self.train_cfg)
        return {f'{prefix}.{name}': value for name, value in losses.items()}

    def _in_head_precision(self, head: Any, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Logits in fp32 throughout with `fp32_heads`, else in what autocast gives."""
        if not self.numerics.fp32_heads:
            return cast(torch.Tensor, head(inputs))
        with without_autocast(inputs[0].device.type):
            return cast(torch.Tensor, head([value.to(HEAD_DTYPE) for value in inputs]))
