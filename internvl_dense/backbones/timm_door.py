"""The door to code written for timm: InternViT in the shape of `timm.create_model(..., features_only=True)`.

Nothing here imports timm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from internvl_dense.backbones.create import create_backbone
from internvl_dense.backbones.internvit import InternViT
from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.errors import UserError

# Preprocessing of every InternViT on the hub (preprocessor_config.json): bicubic resampling (3) to the full size.
INTERPOLATION = 'bicubic'
CROP = 1.0

Stages = int | Sequence[int] | None


class StageInfo:
    """What `feature_info` of timm answers: one row for each block, and which blocks are returned.

    Args:
        info: A row for each block: `module` (name of the block), `num_chs` (channels), `reduction` (input pixels per
            cell) and `index`.
        out_indices: Rows that are returned, 0-based.
    """

    def __init__(self, info: list[dict[str, Any]], out_indices: Sequence[int]) -> None:
        self.info = info
        self.out_indices = tuple(out_indices)

    def channels(self, idx: Stages = None) -> Any:
        """Channels of the outputs, of one block, or of several."""
        return self.get('num_chs', idx)

    def reduction(self, idx: Stages = None) -> Any:
        """Input pixels per cell of the outputs, of one block, or of several."""
        return self.get('reduction', idx)

    def module_name(self, idx: Stages = None) -> Any:
        """Names of the blocks of the outputs, of one block, or of several."""
        return self.get('module', idx)

    def get(self, key: str, idx: Stages = None) -> Any:
        """One column of the rows: a list for the outputs or for several blocks, a value for one block."""
        rows = self.get_dicts(idx=idx)
        return rows[key] if isinstance(idx, int) else [row[key] for row in rows]

    def get_dicts(self, keys: Sequence[str] | None = None, idx: Stages = None) -> Any:
        """Rows, reduced to `keys` if given: a list for the outputs or for several blocks, one row for one block."""
        numbers = [idx] if isinstance(idx, int) else self.out_indices if idx is None else idx
        rows = [{key: self.info[i][key] for key in keys or self.info[i]} for i in numbers]
        return rows[0] if isinstance(idx, int) else rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.info[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.info)

    def __len__(self) -> int:
        return len(self.info)


class InternViTFeatures(nn.Module):
    """An InternViT with the interface of a `features_only` model of timm.

    The module of this project is `trunk`: same class, same keys, here behind `trunk.`.

    Args:
        trunk: The backbone; its `out_indices` are the outputs.

    Raises:
        UserError: The trunk returns class tokens beside maps.
    """

    output_fmt = 'NCHW'

    def __init__(self, trunk: InternViT) -> None:
        super().__init__()
        if trunk.return_cls:
            raise UserError('return_cls=True does not fit this interface, which returns a list of maps')
        self.trunk = trunk
        self.feature_info = stage_info(trunk)
        self.pretrained_cfg = data_config(trunk.spec)

    @classmethod
    def from_variant(cls, name: str, **options: Any) -> InternViTFeatures:
        """Builds the backbone and loads its weights.

        Args:
            name: A registered variant.
            options: As for `internvl_dense.create_backbone`, `weights` and `out_indices` among them.

        Raises:
            UserError: As `create_backbone`.
        """
        return cls(create_backbone(name, **options))

    @property
    def default_cfg(self) -> dict[str, Any]:
        """The older name of `pretrained_cfg`."""
        return self.pretrained_cfg

    @property
    def out_indices(self) -> tuple[int, ...]:
        """0-based blocks after which the maps are taken."""
        return self.trunk.out_indices

    @property
    def num_features(self) -> int:
        """Channels of the last block."""
        return self.trunk.spec.embed_dim

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """One map (B, C, ceil(height / patch), ceil(width / patch)) for each output.

        Args:
            x: Normalised RGB image (B, 3, height, width), any size; see `pretrained_cfg` for mean and std.
        """
        maps: list[torch.Tensor] = self.trunk(x)
        return maps


def stage_info(trunk: InternViT) -> StageInfo:
    """The rows of a backbone, one for each block."""
    spec = trunk.spec
    rows = [{'module': f'trunk.blocks.{block}', 'num_chs': spec.embed_dim, 'reduction': spec.patch_size, 'index': block}
            for block in range(spec.depth)]
    return StageInfo(rows, trunk.out_indices)


def data_config(spec: BackboneSpec) -> dict[str, Any]:
    """How images are prepared, as `timm.data.resolve_data_config` reads it: mean and std of values in 0..1."""
    weights = spec.weights
    return {
        'architecture': spec.name, 'url': '', 'hf_hub_id': weights.hf_repo if weights else None,
        'license': weights.licence.lower() if weights else None, 'num_classes': 0, 'pool_size': None,
        'input_size': (3, spec.image_size, spec.image_size), 'fixed_input_size': False,
        'interpolation': INTERPOLATION, 'crop_pct': CROP,
        'mean': _in_0_1(spec.pixel_mean), 'std': _in_0_1(spec.pixel_std),
        'first_conv': 'trunk.patch_embed.proj', 'classifier': None,
    }


def _in_0_1(values: Sequence[float]) -> tuple[float, ...]:
    """Statistics of 0..255 as statistics of 0..1, without the last digits that division leaves."""
    return tuple(round(value / 255, 9) for value in values)
