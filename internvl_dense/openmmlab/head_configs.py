"""What a segmentor fills into the configs of its heads: widths from the backbone, choices from the numerics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS

from internvl_dense.data.class_names import read_class_names
from internvl_dense.openmmlab import ops_fallback
from internvl_dense.training.numerics import Numerics

Config = dict[str, Any]
CROSS_ENTROPY = 'CrossEntropyLoss'


def complete_heads(
    heads: Any, channels: Sequence[int], numerics: Numerics, in_index: int | None = None
) -> Any:
    """The config of one head or of a list of heads, with what it leaves open filled in.

    Args:
        heads: A dict, or a list of them. `num_classes` may be the path of a text file with one name a line.
        channels: Of the maps that the backbone gives.
        numerics: Decides over which pixels a cross entropy is averaged.
        in_index: Map that is read where the config names none; None leaves that to the head.

    Raises:
        UserError: No such file of class names, or a head that was imported before its operators.
    """
    if isinstance(heads, (list, tuple)):
        return [complete_heads(head, channels, numerics, in_index) for head in heads]
    head = heads if in_index is None else {'in_index': in_index, **heads}
    ops_fallback.require_operators(_class_of(head))
    if isinstance(head.get('num_classes'), str):
        head = {**head, 'num_classes': len(read_class_names(head['num_classes']))}
    return _with_mean(_sized(head, channels), numerics)


def _class_of(head: Config) -> type:
    kind = head['type']
    cls = kind if isinstance(kind, type) else MODELS.get(kind)
    return cls if isinstance(cls, type) else object  # an unknown name is explained where the head is built


def _sized(head: Config, channels: Sequence[int]) -> Config:
    """With `in_channels` taken from the maps that its `in_index` names."""
    if 'in_channels' in head:
        return head
    index = head.get('in_index', -1)
    found = [channels[i] for i in index] if isinstance(index, (list, tuple)) else channels[index]
    return {**head, 'in_channels': found}


def _with_mean(head: Config, numerics: Numerics) -> Config:
    """With the mean of its cross entropies filled in."""
    if 'loss_decode' not in head and getattr(_class_of(head), 'loss', None) is not BaseDecodeHead.loss:
        return head  # heads with a loss of their own need not know this one
    loss = head.get('loss_decode') or {'type': CROSS_ENTROPY}
    if isinstance(loss, (list, tuple)):
        return {**head, 'loss_decode': [_open_mean(one, numerics) for one in loss]}
    return {**head, 'loss_decode': _open_mean(loss, numerics)}


def _open_mean(loss: Config, numerics: Numerics) -> Config:
    is_cross_entropy = str(loss.get('type', '')).rpartition('.')[2] == CROSS_ENTROPY
    return {'avg_non_ignore': numerics.avg_non_ignore, **loss} if is_cross_entropy else loss
