"""Mask2Former's head is whole once detection is imported, in whatever order."""

from __future__ import annotations

import subprocess
import sys

import pytest

WHOLE = ('from mmseg.registry import MODELS; '
         'bases = [c.__module__ for c in MODELS.get("Mask2FormerHead").__mro__]; '
         'assert any(b.startswith("mmdet.") for b in bases), bases; '
         'import mmseg.models.decode_heads as heads; assert heads.Mask2FormerHead is MODELS.get("Mask2FormerHead")')
EMPTY = ('import mmseg.models; from mmseg.registry import MODELS; '
         'assert MODELS.get("Mask2FormerHead").__mro__[1].__name__ == "BaseModule"')


@pytest.mark.parametrize('order', [
    'import internvl_dense.openmmlab.det, mmseg.models',
    f'import internvl_dense.openmmlab; {EMPTY}; import internvl_dense.openmmlab.det',
])
def test_the_head_is_whole(order):
    result = subprocess.run([sys.executable, '-c', f'{order}; {WHOLE}'], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
