"""Keeps packages that a run does not use out of the process.

mmengine imports transformers and bitsandbytes if it finds them, and mmseg imports the whole of mmdet, only to register
optional classes: seconds of start-up and hundreds of MB in every worker. Hidden, they count as not installed.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

# Optional packages that mmengine and mmseg import eagerly; each is imported normally by whoever needs it later.
UNUSED = ('mmdet', 'transformers', 'bitsandbytes', 'deepspeed', 'dadaptation', 'lion_pytorch')


class _Hider(importlib.abc.MetaPathFinder):
    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition('.')[0] in self.names:
            raise ModuleNotFoundError(f'{fullname} is not used here', name=fullname)
        return None


@contextlib.contextmanager
def hidden(names: Sequence[str] = UNUSED) -> Iterator[None]:
    """Within the block, packages of these names that are not imported yet look absent."""
    finder = _Hider([name for name in names if name not in sys.modules])
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
