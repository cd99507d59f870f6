"""mmcv without its compiled extension: imports work, missing operators name themselves."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import internvl_dense.openmmlab  # noqa: F401  installs the stand-in
from internvl_dense.openmmlab import ops_fallback
from internvl_dense.openmmlab.ops_fallback import NAME, install

not_compiled = pytest.mark.skipif(
    not isinstance(sys.modules.get(NAME), ops_fallback._Extension), reason='mmcv is compiled here')


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)


@not_compiled
def test_operators_can_be_imported_and_name_themselves_when_called() -> None:
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    with pytest.raises(NotImplementedError, match="operator 'nms' is not compiled here.*pip install"):
        nms(boxes, torch.ones(1), 0.5)


@not_compiled
def test_missing_operator_is_missing_for_good() -> None:
    extension = sys.modules[NAME]
    with pytest.raises(NotImplementedError, match="'any_name'"):
        extension.any_name(1, b=2)
    with pytest.raises(AttributeError):
        extension.__wrapped__  # noqa: B018 - asking is the test


@not_compiled
def test_environment_reports_say_that_nothing_is_compiled() -> None:
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version

    assert get_compiler_version() == get_compiling_cuda_version() == 'not compiled'


def test_installing_again_does_nothing() -> None:
    before = sys.modules[NAME]
    assert install() is False
    assert sys.modules[NAME] is before


def test_a_compiled_extension_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    monkeypatch.setattr(ops_fallback.importlib.util, 'find_spec', lambda name: types.SimpleNamespace(name=name))
    assert install() is False
    assert NAME not in sys.modules


@not_compiled
@pytest.mark.parametrize(('first', 'head', 'message'), [
    ('mmseg.models', 'PointHead', 'UserError: mmseg.models was imported before internvl_dense.openmmlab, so PointHead'),
    ('mmseg.models', 'Mask2FormerHead', 'so Mask2FormerHead lacks the operators'),
    ('mmseg.models', 'FCNHead', None),
    ('internvl_dense.openmmlab', 'PointHead', None),
])
def test_heads_that_need_operators_are_refused_where_they_came_first(
    first: str, head: str, message: str | None
) -> None:
    result = fresh(f"""
import {first}
import internvl_dense.openmmlab, mmseg.models
from mmengine.registry import init_default_scope
from internvl_dense.openmmlab.head_configs import complete_heads
from internvl_dense.training.numerics import FAST
init_default_scope('mmseg')
complete_heads(dict(type={head!r}, num_classes=2), [8], FAST)
""")
    if message is None:
        assert result.returncode == 0, result.stderr
    else:
        assert message in result.stderr and 'Import internvl_dense.openmmlab first' in result.stderr
