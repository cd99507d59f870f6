"""Classes and label ids of an OpenMMLab data set, as the one description that the rest of the project uses."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from internvl_dense.data.label_policy import LabelPolicy
from internvl_dense.errors import UserError


def label_policy_of(dataset: Any) -> LabelPolicy:
    """The policy of a built data set.

    Raises:
        UserError: It names no classes, or its ids do not fit together.
    """
    meta = dataset.metainfo
    return LabelPolicy(
        tuple(meta.get('classes') or ()), tuple(tuple(colour) for colour in meta.get('palette') or ()),
        # Wrappers such as RepeatDataset lack both; their metainfo has the second one.
        ignore_index=getattr(dataset, 'ignore_index', 255),
        reduce_zero_label=bool(getattr(dataset, 'reduce_zero_label', meta.get('reduce_zero_label', False))),
    )


def config_label_policy(config: Config, split: str) -> LabelPolicy:
    """The policy of the data set of 'train', 'val' or 'test'; its files need not be there."""
    return label_policy_of(_build(config, split))


def config_metainfo(config: Config, split: str) -> dict[str, Any]:
    """What the data set of 'train', 'val' or 'test' says about itself; its files need not be there.

    Raises:
        UserError: It names no classes.
    """
    meta: dict[str, Any] = _build(config, split).metainfo
    if not meta.get('classes'):
        raise UserError(f'{split}_dataloader.dataset names no classes: give it a metainfo')
    return meta


def _build(config: Config, split: str) -> Any:
    init_default_scope(config.get('default_scope', 'mmseg'))
    return DATASETS.build({**config[f'{split}_dataloader'].dataset, 'lazy_init': True})
