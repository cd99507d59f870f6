"""What a detector fills into the configs of its neck and heads: channels and strides, asked from the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.registry import MODELS

from internvl_dense.backbones.internvit import FeatureInfo

Config = dict[str, Any]
EXTRACTORS = ('bbox_roi_extractor', 'mask_roi_extractor')
ROI_HEADS = ('bbox_head', 'mask_head')
ROI_LEVELS = 4  # regions are read from the first four maps; the coarser ones serve proposals only


def complete_detector(model: Mapping[str, Any], info: FeatureInfo, num_classes: int | None = None) -> Config:
    """The arguments of a detector with what its config leaves open filled in; what it states stays.

    Args:
        model: `neck`, `rpn_head`, `roi_head`, `bbox_head`, ... without the backbone, which `info` describes.
        info: Channels and strides of the maps that the backbone gives.
        num_classes: Of every head that tells classes apart.
    """
    filled = dict(model)
    classes = {} if num_classes is None else {'num_classes': num_classes}
    strides, channels = list(info.strides), info.channels[0]
    if filled.get('neck'):
        neck = filled['neck'] = {'in_channels': list(info.channels), **filled['neck']}
        strides, channels = neck_strides(neck, strides), neck.get('out_channels', channels)
    if filled.get('rpn_head'):
        filled['rpn_head'] = _dense_head(filled['rpn_head'], strides, channels)
    if filled.get('bbox_head'):
        filled['bbox_head'] = _dense_head({**classes, **filled['bbox_head']}, strides, channels)
    if filled.get('roi_head'):
        filled['roi_head'] = _roi_head(filled['roi_head'], strides, channels, classes)
    if filled.get('data_preprocessor'):
        # Images of a batch share a size; in a multiple of the coarsest stride no cell is covered in part.
        divisor = int(max(strides[:ROI_LEVELS]))
        filled['data_preprocessor'] = {'pad_size_divisor': divisor, **filled['data_preprocessor']}
    return filled


def neck_strides(neck: Mapping[str, Any], strides: Sequence[float]) -> list[float]:
    """Strides of the maps behind a neck: those it reads, then twice the last one for each level more.

    A neck that makes its own levels says so with `output_strides(strides)` on its class.
    """
    own = getattr(_class_of(neck), 'output_strides', None)
    found = list(own(strides)) if own else list(strides)[neck.get('start_level', 0):]
    while len(found) < neck.get('num_outs', len(found)):
        found.append(found[-1] * 2)
    return found


def _class_of(config: Mapping[str, Any]) -> Any:
    kind = config['type']
    return kind if isinstance(kind, type) else MODELS.get(kind)


def _bases(config: Mapping[str, Any]) -> set[str]:
    return {base.__name__ for base in getattr(_class_of(config), '__mro__', ())}


def _dense_head(head: Config, strides: Sequence[float], channels: int) -> Config:
    bases = _bases(head)
    if 'DETRHead' in bases:  # reads queries, not maps
        return head
    head = {'in_channels': channels, **head}
    if head.get('anchor_generator'):
        head['anchor_generator'] = {'strides': list(strides), **head['anchor_generator']}
    elif 'AnchorFreeHead' in bases:
        head.setdefault('strides', list(strides))
    return head


def _roi_head(roi_head: Config, strides: Sequence[float], channels: int, classes: Config) -> Config:
    extractor = {'out_channels': channels, 'featmap_strides': list(strides[:ROI_LEVELS])}
    filled = dict(roi_head)
    for names, defaults in ((EXTRACTORS, extractor), (ROI_HEADS, {'in_channels': channels, **classes})):
        filled.update({name: _with_defaults(roi_head[name], defaults) for name in names if roi_head.get(name)})
    return filled


def _with_defaults(configs: Any, defaults: Config) -> Any:
    """One config, or the list of a cascade's stages, with defaults below what they state."""
    if isinstance(configs, (list, tuple)):
        return [{**defaults, **config} for config in configs]
    return {**defaults, **configs}
