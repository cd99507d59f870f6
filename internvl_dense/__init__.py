"""InternViT as a backbone for dense prediction.

The names below are looked up on first use, so that `import internvl_dense` costs nothing and command lines answer
`--help` without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from internvl_dense.backbones.create import create_backbone, list_backbones

__all__ = ['__version__', 'create_backbone', 'list_backbones']
__version__ = '0.1.0'

_HOMES = {
    'create_backbone': 'internvl_dense.backbones.create',
    'list_backbones': 'internvl_dense.backbones.create',
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
