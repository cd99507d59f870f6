"""Which task a config is for."""

from __future__ import annotations

from typing import Any

SEGMENTATION = 'segmentation'
DETECTION = 'detection'


def task_of(config: Any) -> str:
    """'segmentation' where the model has a decode head, also inside test-time augmentation, else 'detection'."""
    model = config.get('model') or {}
    while model.get('module'):
        model = model['module']
    return SEGMENTATION if model.get('decode_head') else DETECTION
