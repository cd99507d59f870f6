"""mmseg's heads that are made of mmdet's parts.

Where mmdet was not to be seen while mmseg.models was imported, mmseg left these heads in its registry as empty shells.
"""

from __future__ import annotations

import importlib
import sys

from mmseg.registry import MODELS

PARTS = {'mask2former_head': 'Mask2FormerHead', 'maskformer_head': 'MaskFormerHead'}
FOLDER = 'mmseg.models.decode_heads'


def restore() -> None:
    """Imports those heads again, now that mmdet is there; without effect where they are whole."""
    for name, cls in PARTS.items():
        module = sys.modules.get(f'{FOLDER}.{name}')
        if module is None or getattr(module, cls).__mro__[1].__module__.startswith('mmdet'):
            continue
        MODELS.module_dict.pop(cls, None)
        whole = getattr(importlib.reload(module), cls)
        setattr(sys.modules[FOLDER], cls, whole)
