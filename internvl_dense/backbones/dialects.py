"""Names that checkpoints give to the parameters of InternViT, and the way between them and ours.

Our own names are those of the official files (`blocks.0.attn.qkv.weight`). A dialect is a table of rows; in a row `{i}`
stands for a block number and `{rest}` for whatever follows, and the first row that matches decides.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch

from internvl_dense.errors import UserError

V = TypeVar('V')

PLACEHOLDERS = {r'\{i\}': r'(?P<i>\d+)', r'\{rest\}': r'(?P<rest>.+)'}
# Left in front of every key by DistributedDataParallel and by torch.compile.
WRAPPERS = ('', 'module.', '_orig_mod.')


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where a tensor of a file belongs: a native key, or one of `parts` equal blocks of its rows."""

    key: str
    part: int = 0
    parts: int = 1

    def view(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows of the native `tensor` (parts * R, ...) that this slot stands for, as a view (R, ...)."""
        return tensor if self.parts == 1 else tensor.chunk(self.parts)[self.part]


@dataclasses.dataclass(frozen=True)
class Row:
    """One rule: the name in the file, the native name, and which part of a fused tensor it holds."""

    foreign: str
    native: str
    part: int = 0
    parts: int = 1


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    text = re.escape(template)
    for placeholder, group in PLACEHOLDERS.items():
        text = text.replace(placeholder, group)
    return re.compile(text)


@dataclasses.dataclass(frozen=True)
class Dialect:
    """One layout of checkpoints.

    Args:
        name: How reports and `--to` call it.
        rows: The table, most specific row first.
        source: Where the names are defined.
        prefixes: What may stand in front of every trunk key.
        known_unused: Glob patterns, over keys of the file or native keys, of parts that the trunk has no use for.
    """

    name: str
    rows: tuple[Row, ...]
    source: str
    prefixes: tuple[str, ...] = ('',)
    known_unused: tuple[str, ...] = ()

    def to_native(self, key: str) -> Slot | None:
        """Where a key of the file (without prefix) belongs, or None if it is no part of the trunk."""
        for row in self.rows:
            match = _pattern(row.foreign).fullmatch(key)
            if match:
                return Slot(row.native.format(**match.groupdict()), row.part, row.parts)
        return None

    def to_foreign(self, key: str) -> list[tuple[str, Slot]]:
        """Names in this dialect for a native key: one, or one for each part of a tensor that the dialect splits.

        Raises:
            UserError: The dialect has no name for it.
        """
        found: list[tuple[str, Slot]] = []
        template = None
        for row in self.rows:
            match = _pattern(row.native).fullmatch(key)
            if match and template in (None, row.native):
                template = row.native
                found.append((row.foreign.format(**match.groupdict()), Slot(key, row.part, row.parts)))
        if not found:
            raise UserError(f'{key!r} has no name in the dialect {self.name!r}')
        return found

    def count(self, keys: Iterable[str], prefix: str) -> int:
        """How many of `keys` are trunk parameters behind `prefix`."""
        length = len(prefix)
        return sum(key.startswith(prefix) and self.to_native(key[length:]) is not None for key in keys)

    def detect(self, keys: Iterable[str]) -> bool:
        """Whether `keys` are best read in this dialect."""
        layout = find_layout(list(keys))
        return layout is not None and layout.dialect is self


@dataclasses.dataclass(frozen=True)
class Layout:
    """A dialect and the prefix that its trunk keys have in one file."""

    dialect: Dialect
    prefix: str

    def to_native(self, key: str) -> Slot | None:
        """Where a full key of the file belongs, or None."""
        return self.dialect.to_native(key[len(self.prefix):]) if key.startswith(self.prefix) else None

    def is_known_unused(self, key: str) -> bool:
        """Whether the dialect knows this key, of the file or native, as no part of the trunk."""
        for wrapper in WRAPPERS:
            if self.prefix.startswith(wrapper):
                key = key.removeprefix(wrapper)
        return any(fnmatch.fnmatchcase(key, pattern) for pattern in self.dialect.known_unused)

    def __str__(self) -> str:
        return f'{self.dialect.name} (keys behind {self.prefix!r})' if self.prefix else self.dialect.name


_NATIVE_ROWS = (
    Row('cls_token', 'cls_token'),
    Row('pos_embed', 'pos_embed'),
    Row('register_tokens', 'register_tokens'),
    Row('patch_embed.{rest}', 'patch_embed.{rest}'),
    Row('blocks.{i}.{rest}', 'blocks.{i}.{rest}'),
    Row('norm.{rest}', 'norm.{rest}'),
)
_HF_ROWS = (
    Row('embeddings.class_embedding', 'cls_token'),
    Row('embeddings.position_embedding', 'pos_embed'),
    Row('embeddings.patch_embedding.{rest}', 'patch_embed.proj.{rest}'),
    Row('encoder.layers.{i}.ls1', 'blocks.{i}.ls1.gamma'),
    Row('encoder.layers.{i}.ls2', 'blocks.{i}.ls2.gamma'),
    Row('encoder.layers.{i}.{rest}', 'blocks.{i}.{rest}'),
)
_BLOCK = 'encoder.layer.{i}'
_TRANSFORMERS_ROWS = (
    Row('embeddings.cls_token', 'cls_token'),
    Row('embeddings.position_embeddings', 'pos_embed'),
    Row('embeddings.patch_embeddings.projection.{rest}', 'patch_embed.proj.{rest}'),
    Row(f'{_BLOCK}.attention.q_proj.{{rest}}', 'blocks.{i}.attn.qkv.{rest}', part=0, parts=3),
    Row(f'{_BLOCK}.attention.k_proj.{{rest}}', 'blocks.{i}.attn.qkv.{rest}', part=1, parts=3),
    Row(f'{_BLOCK}.attention.v_proj.{{rest}}', 'blocks.{i}.attn.qkv.{rest}', part=2, parts=3),
    Row(f'{_BLOCK}.attention.projection_layer.{{rest}}', 'blocks.{i}.attn.proj.{rest}'),
    Row(f'{_BLOCK}.attention.{{rest}}', 'blocks.{i}.attn.{rest}'),
    Row(f'{_BLOCK}.layernorm_before.{{rest}}', 'blocks.{i}.norm1.{rest}'),
    Row(f'{_BLOCK}.layernorm_after.{{rest}}', 'blocks.{i}.norm2.{rest}'),
    Row(f'{_BLOCK}.lambda_1', 'blocks.{i}.ls1.gamma'),
    Row(f'{_BLOCK}.lambda_2', 'blocks.{i}.ls2.gamma'),
    Row(f'{_BLOCK}.{{rest}}', 'blocks.{i}.{rest}'),
    Row('layernorm.{rest}', 'norm.{rest}'),
)
_CONTRASTIVE = (
    'clip_projector.*', 'clip_projector2.*', 'text_projection', 'logit_scale', 'query_tokens', 'qllama.*', 'itm_head.*',
)
_CLASSIFIER = ('attn_pooling.*', 'norm.*', 'fc_norm.*', 'head.*')
_HEADS = ('decode_head', 'auxiliary_head', 'neck', 'rpn_head', 'roi_head', 'data_preprocessor')
_PYRAMID = tuple(f'up{level}' for level in range(1, 5))
_ADAPTER = ('spm', 'interactions', 'level_embed', 'up', *(f'norm{level}' for level in range(1, 5)))

OFFICIAL = Dialect(
    'official', _NATIVE_ROWS, 'OpenGVLab/InternVL: intern_vit_6b_*.pth, internvl_c_13b_224px.pth',
    known_unused=(*_CONTRASTIVE, *_CLASSIFIER, 'transformer.*'),
)
HF = Dialect(
    'hf', _HF_ROWS, 'OpenGVLab/InternViT-* on the hub: modeling_intern_vit.py, class InternVisionModel',
)
CHAT = Dialect(
    'chat', _HF_ROWS, 'OpenGVLab/InternVL: internvl_chat and internvl_14b modelling files; internvl_chat_llava',
    prefixes=('vision_model.', 'model.vision_tower.vision_tower.'),
    known_unused=(
        *_CONTRASTIVE, 'language_model.*', 'mlp1.*',
        'lm_head.*', 'model.embed_tokens.*', 'model.layers.*', 'model.norm.*', 'model.mm_projector.*',
    ),
)
TRANSFORMERS = Dialect(
    'transformers', _TRANSFORMERS_ROWS,
    'huggingface/transformers, src/transformers/models/internvl/modeling_internvl.py, class InternVLVisionModel',
    prefixes=('', 'vision_tower.', 'model.vision_tower.'),
    known_unused=(
        'language_model.*', 'model.language_model.*', 'multi_modal_projector.*', 'model.multi_modal_projector.*',
        'lm_head.*', '*embeddings.mask_token', 'norm.*',
    ),
)
# Without registers and head its keys are those of an official file, and are read as one.
TIMM = Dialect(
    'timm', (Row('reg_token', 'register_tokens'), *_NATIVE_ROWS),
    'huggingface/pytorch-image-models, timm/models/vision_transformer.py, vit_intern300m_patch14_448',
    prefixes=('', 'model.'), known_unused=_CLASSIFIER,
)
SEGMENTOR = Dialect(
    'segmentor', _NATIVE_ROWS, 'whole models of mmsegmentation and mmdetection; OpenGVLab/InternVL-MMDetSeg',
    prefixes=('backbone.',),
    known_unused=(
        *(f'{head}.*' for head in _HEADS),
        *(f'backbone.{part}{end}' for part in (*_PYRAMID, *_ADAPTER) for end in ('', '.*')),
    ),
)
DIALECTS = {row.name: row for row in (OFFICIAL, HF, CHAT, TRANSFORMERS, TIMM, SEGMENTOR)}


def find_layout(keys: Iterable[str]) -> Layout | None:
    """The dialect and prefix that explain most keys, or None if no key belongs to the trunk."""
    names = list(keys)
    options = [
        Layout(dialect, wrapper + prefix)
        for wrapper in WRAPPERS for dialect in DIALECTS.values() for prefix in dialect.prefixes
    ]
    scores = [layout.dialect.count(names, layout.prefix) for layout in options]
    best = max(scores)
    return options[scores.index(best)] if best else None


def to_foreign(state: Mapping[str, torch.Tensor], dialect: Dialect, prefix: str = '') -> dict[str, torch.Tensor]:
    """Renames a native state dict; tensors are views of the given ones.

    Raises:
        UserError: A key has no name in the dialect.
    """
    return {
        prefix + name: slot.view(tensor) for key, tensor in state.items() for name, slot in dialect.to_foreign(key)
    }


def split_segmentor(state: Mapping[str, V]) -> dict[str, dict[str, V]]:
    """Cuts the state dict of a whole segmentor or detector into its parts.

    Args:
        state: Keys behind `backbone.`, `decode_head.`, `auxiliary_head.`, `neck.`, `rpn_head.`, `roi_head.`.

    Returns:
        The parts that exist: 'backbone' (native trunk keys), 'pyramid' (`up1.0.weight`, ..., of the backbone or the
        neck), 'adapter' (`spm.*`, `interactions.*`, ...) and every head under its own name, keys without the prefix.

    Raises:
        UserError: A key has no prefix, so this is no whole model.
    """
    parts: dict[str, dict[str, V]] = {}
    for key, value in state.items():
        part, _, name = key.removeprefix('module.').partition('.')
        if not name:
            raise UserError(f'{key!r} belongs to no part of a segmentor; parts are backbone, {", ".join(_HEADS)}')
        top = name.partition('.')[0]
        if part in ('backbone', 'neck') and top in _PYRAMID:
            part = 'pyramid'
        elif part == 'backbone' and top in _ADAPTER:
            part = 'adapter'
        parts.setdefault(part, {})[name] = value
    return parts
