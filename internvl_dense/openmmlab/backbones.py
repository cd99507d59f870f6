"""InternViT as an OpenMMLab backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS

from internvl_dense.backbones.create import fill_weights, resolve_spec
from internvl_dense.backbones.fingerprint import Origin
from internvl_dense.backbones.internvit import FeatureMap, InternViT
from internvl_dense.backbones.locate import PUBLISHED
from internvl_dense.backbones.trunk_keys import trunk_parameters
from internvl_dense.errors import UserError
from internvl_dense.openmmlab import frozen_trunk
from internvl_dense.training.precision import HEAD_DTYPE, trunk_dtype

BACKBONE_TYPES = ('InternViT', 'InternViT6B')  # the second is the published name
NO_WEIGHTS = ("model.backbone.weights is None: write 'published', the path of a file or folder, or 'random' to train "
              'from random values')


@MODELS.register_module(name=list(BACKBONE_TYPES))
class InternViTBackbone(InternViT):
    """`InternViT` for a config: `backbone=dict(type='InternViT', variant=..., weights=...)`.

    Memory is reserved here and filled later: by `init_weights()`, which a runner calls, or by a whole checkpoint. A
    forward pass before that is an error, so random memory never looks like a model.

    Args:
        variant: A registered variant.
        weights: Checkpoint file or folder, 'published' (looked for in $INTERNVL_DENSE_WEIGHTS and ./pretrained) or
            'random'.
        dtype: 'fp32' or 'bf16', the precision of the trunk; maps leave it in fp32.
        allow_missing: Glob patterns of keys that the weights may lack.
        init_cfg: `dict(type='Pretrained', checkpoint=PATH)` means `weights=PATH`.
        save_frozen: Keep a frozen trunk in checkpoints; without it they hold what was trained, and the checksum of the
            weights that the trunk comes from.
        overrides: `patch_size`, `image_size` and fields of `BackboneSpec`.
        (all others): As for `internvl_dense.create_backbone`.

    Raises:
        UserError: Unknown variant or option.
    """

    def __init__(
        self,
        variant: str,
        weights: str | None = PUBLISHED,
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
        window_size: int | Sequence[int | None] | None = None,
        global_blocks: str | Sequence[int] = (),
        window_padding: str = 'masked',
        save_frozen: bool = False,
        **overrides: Any,
    ) -> None:
        spec = resolve_spec(variant, **overrides)
        device = torch.get_default_device()
        with torch.device('meta'):
            super().__init__(
                spec, out_indices=out_indices, attention=attention, drop_path_rate=drop_path_rate,
                checkpointing=checkpointing, return_cls=return_cls, frozen=frozen, window_size=window_size,
                global_blocks=global_blocks, window_padding=window_padding,
            )
        self.to(trunk_dtype(dtype))
        self.weights = configured_weights(weights, init_cfg)
        self.save_frozen = save_frozen
        self.origin: Origin | None = None  # where the values come from, while they are those of a file
        self.allow_missing = tuple(allow_missing)
        self.is_init = False  # mmengine's name: whether init_weights() has run
        self.filled = False
        self.register_load_state_dict_pre_hook(_before_load)
        if device.type != 'meta':
            self.to_empty(device=device)

    def init_weights(self) -> None:
        """Fills the parameters from `weights`, or at random.

        Raises:
            UserError: `weights` is None, the file is not there, or it does not fit.
        """
        if self.weights is None:
            raise UserError(NO_WEIGHTS)
        path = fill_weights(self, self.weights, self.allow_missing)
        self.origin = None if path is None else Origin(path)
        self.is_init = self.filled = True

    def forward(self, image_B3HW: torch.Tensor) -> list[FeatureMap]:
        """As `InternViT.forward`, with maps in fp32.

        Raises:
            UserError: The parameters were never filled.
        """
        self.require_filled()
        return [to_head_dtype(output) for output in super().forward(image_B3HW)]

    def require_filled(self) -> None:
        """Refuses memory that was never filled.

        Raises:
            UserError: It was not.
        """
        if not self.filled and self.pos_embed.device.type != 'meta':
            raise UserError(f'{self.spec.name} has no weights yet: call init_weights() or load a checkpoint first')


def configured_weights(weights: str | None, init_cfg: dict[str, Any] | None) -> str | None:
    """What a config means by `weights` and `init_cfg` together.

    Raises:
        UserError: Both are given, or `init_cfg` is no checkpoint.
    """
    if init_cfg is None:
        return weights
    if init_cfg.get('type') != 'Pretrained' or weights not in (None, PUBLISHED):
        raise UserError(f"init_cfg {init_cfg} with weights={weights!r}: the backbone takes weights=PATH, or "
                        "init_cfg=dict(type='Pretrained', checkpoint=PATH), and only one of them")
    return str(init_cfg['checkpoint'])


def _before_load(
    module: torch.nn.Module, state: dict[str, Any], prefix: str, local_metadata: Mapping[str, Any], *_: Any
) -> None:
    """Notes that a state fills the trunk; a state without one gets the trunk that it was trained on."""
    assert isinstance(module, InternViTBackbone)
    own = trunk_parameters(module)
    found = [name for name in own if prefix + name in state]
    if not found and frozen_trunk.RECORD in local_metadata:
        frozen_trunk.fill(module, local_metadata[frozen_trunk.RECORD], 'this checkpoint')
        state.update({prefix + name: parameter.detach() for name, parameter in own.items()})
    elif all(prefix + name in state for name, _ in module.named_parameters()):
        module.filled = True
        name = found[0]
        if state[prefix + name].data_ptr() != own[name].data_ptr():  # else it is its own, put there for completeness
            module.origin = None


def to_head_dtype(output: FeatureMap) -> FeatureMap:
    """An output of a backbone in the precision of heads."""
    if isinstance(output, tuple):
        return output[0].to(HEAD_DTYPE), output[1].to(HEAD_DTYPE)
    return output.to(HEAD_DTYPE)
