"""Parts that turn the maps of a plain ViT into dense predictions, in pure PyTorch.

The names below are looked up on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from internvl_dense.dense.vit_adapter import InternViTAdapter

__all__ = ['InternViTAdapter']

_HOMES = {'InternViTAdapter': 'internvl_dense.dense.vit_adapter'}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
