"""The door to Hugging Face models: InternViT in the shape of an `AutoBackbone`.

Nothing here imports transformers; a model of that library that asks its backbone for `channels`, `forward` and
`feature_maps` gets them. Suffixes: B batch, N tokens, C channels, h x w the grid of patches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from internvl_dense.backbones.create import create_backbone
from internvl_dense.backbones.internvit import InternViT
from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.errors import UserError, problems
from internvl_dense.registry import unknown

MODEL_TYPE = 'internvl_dense'  # in config.json; not the name of a model that transformers has
STEM = 'stem'  # stage 0 of every ViT backbone there: the embeddings. Stage i is block i - 1 here.
OUTPUTS = ('feature_maps', 'hidden_states', 'attentions')

Maps = tuple[torch.Tensor, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class BackboneMaps(Mapping[str, Maps]):
    """Outputs by attribute, name or position; those that were not asked for are None and have no name or position.

    Args:
        feature_maps: One map (B, C, h, w) for each output, or tokens (B, 1 + h * w, C).
        hidden_states: Tokens (B, N, C) after the embeddings and after each block that was computed.
        attentions: Always None; part of the interface.
    """

    feature_maps: Maps
    hidden_states: Maps | None = None
    attentions: None = None

    def to_tuple(self) -> tuple[Maps, ...]:
        """The outputs that are there, in order."""
        return tuple(self[name] for name in self)

    def __iter__(self) -> Iterator[str]:
        return (name for name in OUTPUTS if getattr(self, name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in tuple(self):
            raise KeyError(key)
        return getattr(self, key)


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Geometry under the names that models of transformers read. Sizes in pixels, channels or blocks."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    image_size: int
    patch_size: int
    num_register_tokens: int
    layer_norm_eps: float
    stage_names: list[str]
    out_features: list[str]
    out_indices: list[int]
    reshape_hidden_states: bool
    num_channels: int = 3
    model_type: str = MODEL_TYPE
    output_hidden_states: bool = False
    return_dict: bool = True

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON holds them."""
        return dataclasses.asdict(self)


def describe(spec: BackboneSpec, blocks: Sequence[int], reshape_hidden_states: bool = True) -> BackboneConfig:
    """The config of a backbone that returns maps after the given 0-based blocks."""
    names = stage_names(spec)
    return BackboneConfig(
        hidden_size=spec.embed_dim, num_hidden_layers=spec.depth, num_attention_heads=spec.num_heads,
        intermediate_size=spec.mlp_dim, image_size=spec.image_size, patch_size=spec.patch_size,
        num_register_tokens=spec.num_register_tokens, layer_norm_eps=spec.norm_eps, stage_names=names,
        out_features=[names[block + 1] for block in blocks], out_indices=[block + 1 for block in blocks],
        reshape_hidden_states=reshape_hidden_states,
    )


def spec_of(variant: str, options: dict[str, Any]) -> BackboneSpec:
    """The spec that `create_backbone` makes of a variant and its options, all of them checked; no memory is taken."""
    return create_backbone(variant, **{**options, 'weights': None, 'device': 'meta'}).spec


def stage_names(spec: BackboneSpec) -> list[str]:
    """'stem' for the embeddings, then 'stage1' for block 0, and so on."""
    return [STEM, *(f'stage{number}' for number in range(1, spec.depth + 1))]


def blocks_of(spec: BackboneSpec, out_features: Sequence[str]) -> tuple[int, ...]:
    """0-based blocks of stages by name.

    Raises:
        UserError: A name is no stage, or is 'stem', of which there is no map.
    """
    names = stage_names(spec)
    wrong = [unknown('stage', name, names[1:]) for name in out_features if name not in names[1:]]
    if wrong:
        raise UserError(problems(f'out_features of {spec.name}', wrong))
    return tuple(names.index(name) - 1 for name in out_features)


class InternViTHFBackbone(nn.Module):
    """An InternViT with the interface of a backbone of transformers.

    The module of this project is `trunk`: same class, same keys, here behind `trunk.`.

    Args:
        trunk: The backbone; its `out_indices` are the outputs.
        config: What `config` shall be, where a config of transformers describes the backbone already.
        reshape_hidden_states: Return maps (B, C, h, w). Without it each output is tokens (B, 1 + h * w, C), class token
            first and registers left out, as DPT reads them.

    Raises:
        UserError: The trunk returns class tokens beside maps, or has none where tokens are asked for.
    """

    has_attentions = False

    def __init__(self, trunk: InternViT, config: Any = None, *, reshape_hidden_states: bool = True) -> None:
        super().__init__()
        if trunk.return_cls:
            raise UserError('return_cls=True does not fit this interface; reshape_hidden_states=False returns tokens '
                            'with the class token first')
        if not reshape_hidden_states and not trunk.spec.cls_token:
            raise UserError(f'reshape_hidden_states=False needs a class token, which {trunk.spec.name} lacks')
        self.trunk = trunk
        self.reshape_hidden_states = reshape_hidden_states
        self._description = describe(trunk.spec, trunk.out_indices, reshape_hidden_states)
        self.config = self._description if config is None else config

    @classmethod
    def from_variant(
        cls, name: str, *, out_features: Sequence[str] | None = None, reshape_hidden_states: bool = True, **options: Any
    ) -> InternViTHFBackbone:
        """Builds the backbone and loads its weights.

        Args:
            name: A registered variant.
            out_features: Stages by name, 'stage1' to 'stage<depth>', instead of `out_indices`.
            reshape_hidden_states: As for the class.
            options: As for `internvl_dense.create_backbone`, `weights` among them. `out_indices` counts blocks from 0
                there, one less than the number of the stage.

        Raises:
            UserError: As `create_backbone`; both `out_features` and `out_indices`; a stage that is not there.
        """
        if out_features is not None:
            if 'out_indices' in options:
                raise UserError('give out_features (names of stages) or out_indices (blocks from 0), not both')
            options['out_indices'] = blocks_of(spec_of(name, options), out_features)
        return cls(create_backbone(name, **options), reshape_hidden_states=reshape_hidden_states)

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> InternViTHFBackbone:
        """What `AutoBackbone.from_config` calls; see `internvl_dense.backbones.hf_register`."""
        trunk = create_backbone(config.variant, weights=config.weights, **config.trunk_options, **kwargs)
        if trunk.pos_embed.device.type != 'meta':
            _keep_values(trunk)
        return cls(trunk, config, reshape_hidden_states=config.reshape_hidden_states)

    @property
    def stage_names(self) -> list[str]:
        """'stem', 'stage1', ..., one for each block."""
        return self._description.stage_names

    @property
    def out_features(self) -> list[str]:
        """Stages that are returned."""
        return self._description.out_features

    @property
    def out_indices(self) -> list[int]:
        """Positions of `out_features` in `stage_names`: the block after which a map is taken, plus one."""
        return self._description.out_indices

    @property
    def num_features(self) -> list[int]:
        """Channels of every stage."""
        return [self.trunk.spec.embed_dim] * len(self.stage_names)

    @property
    def out_feature_channels(self) -> dict[str, int]:
        """Channels of every stage by name."""
        return dict(zip(self.stage_names, self.num_features, strict=True))

    @property
    def channels(self) -> list[int]:
        """Channels of the outputs."""
        return list(self.trunk.feature_info.channels)

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> BackboneMaps | tuple[Maps, ...]:
        """Maps of an image, in the dtype of the trunk.

        Args:
            pixel_values: Normalised RGB image (B, 3, height, width), any size.
            output_hidden_states: Return tokens (B, N, C) after the embeddings and each block up to the last one that
                is read; by default as `config` says.
            output_attentions: Not available.
            return_dict: False returns a plain tuple; by default as `config` says.

        Raises:
            UserError: Attention maps are asked for.
        """
        if output_attentions:
            raise UserError('output_attentions=True: attention maps are not kept by this backbone; leave it out')
        asked = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        with _recorded(self.trunk) if asked else contextlib.nullcontext() as states:
            outputs, grid = self.trunk.forward_tokens(pixel_values)
        maps = BackboneMaps(
            tuple(self._output(x_BNC, grid) for x_BNC in outputs), None if states is None else tuple(states)
        )
        return maps.to_tuple() if return_dict is False or self.config.return_dict is False else maps

    def forward_with_filtered_kwargs(self, *args: Any, **kwargs: Any) -> BackboneMaps | tuple[Maps, ...]:
        """`forward` without the arguments that it does not know; models of transformers call this."""
        known = inspect.signature(self.forward).parameters
        return self(*args, **{name: value for name, value in kwargs.items() if name in known})

    def _output(self, x_BNC: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        patches = x_BNC[:, self.trunk.spec.num_prefix_tokens:]
        if self.reshape_hidden_states:
            return patches.unflatten(1, grid).permute(0, 3, 1, 2)
        return torch.cat([x_BNC[:, :1], patches], dim=1)


@contextlib.contextmanager
def _recorded(trunk: InternViT) -> Iterator[list[torch.Tensor]]:
    """Within the block, collects the input of the first block and the output of each that is computed."""
    states: list[torch.Tensor] = []
    blocks = trunk.blocks[: trunk.out_indices[-1] + 1]
    handles = [blocks[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))]
    handles += [block.register_forward_hook(lambda _, __, output: states.append(output)) for block in blocks]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _keep_values(trunk: InternViT) -> None:
    """Marks the trunk as filled, or a model of transformers draws random values over it when it is built."""
    for module in trunk.modules():
        module._is_hf_initialized = True  # type: ignore[assignment]  # the mark that its initialisation looks for
