"""InternViT as an OpenMMLab backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS

from internvl_dense.backbones.create import fill_weights, resolve_spec
from internvl_dense.backbones.internvit import FeatureMap, InternViT
from internvl_dense.errors import UserError
from internvl_dense.training.precision import HEAD_DTYPE, trunk_dtype


@MODELS.register_module(name=['InternViT', 'InternViT6B'])
class InternViTBackbone(InternViT):
    """`InternViT` for a config: `backbone=dict(type='InternViT', variant=..., weights=...)`.

    Memory is reserved here and filled later: by `init_weights()`, which a runner calls, or by a whole checkpoint. A
    forward pass before that is an error, so random memory never looks like a model.

    Args:
        variant: A registered variant.
        weights: Checkpoint file or folder, or None for random values.
        dtype: 'fp32' or 'bf16', the precision of the trunk; maps leave it in fp32.
        allow_missing: Glob patterns of keys that the weights may lack.
        init_cfg: `dict(type='Pretrained', checkpoint=PATH)` means `weights=PATH`.
        overrides: `patch_size`, `image_size` and fields of `BackboneSpec`.
        (all others): As for `internvl_dense.create_backbone`.

    Raises:
        UserError: Unknown variant or option.
    """

    def __init__(
        self,
        variant: str,
        weights: str | None = None,
        dtype: str = 'fp32',
        allow_missing: Sequence[str] = (),
        init_cfg: dict[str, Any] | None = None,
        *,
        out_indices: str | Sequence[int] = 'stages',
        attention: str = 'auto',
        frozen: bool = False,
        drop_path_rate: float = 0.0,
        checkpointing: str = 'none',
        return_cls: bool = False,
        **overrides: Any,
    ) -> None:
        spec = resolve_spec(variant, **overrides)
        device = torch.get_default_device()
        with torch.device('meta'):
            super().__init__(
                spec, out_indices=out_indices, attention=attention, drop_path_rate=drop_path_rate,
                checkpointing=checkpointing, return_cls=return_cls, frozen=frozen,
            )
        self.to(trunk_dtype(dtype))
        self.weights = _weights(weights, init_cfg)
        self.allow_missing = tuple(allow_missing)
        self.is_init = False  # mmengine's name: whether init_weights() has run
        self.filled = False
        self.register_load_state_dict_pre_hook(_mark_filled)
        if device.type != 'meta':
            self.to_empty(device=device)

    def init_weights(self) -> None:
        """Fills the parameters from `weights`, or at random.

        Raises:
            UserError: The weights do not fit.
        """
        fill_weights(self, self.weights, self.allow_missing)
        self.is_init = self.filled = True

    def forward(self, image_B3HW: torch.Tensor) -> list[FeatureMap]:
        """As `InternViT.forward`, with maps in fp32.

        Raises:
            UserError: The parameters were never filled.
        """
        if not self.filled and self.pos_embed.device.type != 'meta':
            raise UserError(f'{self.spec.name} has no weights yet: call init_weights() or load a checkpoint first')
        return [_to_head_dtype(output) for output in super().forward(image_B3HW)]


def _weights(weights: str | None, init_cfg: dict[str, Any] | None) -> str | None:
    if init_cfg is None:
        return weights
    if init_cfg.get('type') != 'Pretrained' or weights is not None:
        raise UserError(f"init_cfg {init_cfg} with weights={weights!r}: the backbone takes weights=PATH, or "
                        "init_cfg=dict(type='Pretrained', checkpoint=PATH), and only one of them")
    return str(init_cfg['checkpoint'])


def _mark_filled(module: torch.nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(module, InternViTBackbone)
    module.filled = module.filled or all(prefix + name in state for name, _ in module.named_parameters())


def _to_head_dtype(output: FeatureMap) -> FeatureMap:
    if isinstance(output, tuple):
        return output[0].to(HEAD_DTYPE), output[1].to(HEAD_DTYPE)
    return output.to(HEAD_DTYPE)
