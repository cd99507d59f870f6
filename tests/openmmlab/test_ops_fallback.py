"""mmcv without its compiled extension: its operators work, missing ones name themselves."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import mmcv.ops
import pytest
import torch

import internvl_dense.openmmlab  # noqa: F401  installs the stand-in
from internvl_dense.openmmlab import ops_fallback
from internvl_dense.openmmlab.ext_ops import OPERATORS
from internvl_dense.openmmlab.ops_fallback import NAME, install

not_compiled = pytest.mark.skipif(
    not isinstance(sys.modules.get(NAME), ops_fallback._Extension), reason='mmcv is compiled here')


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)


@not_compiled
def test_operators_of_mmcv_compute() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    assert mmcv.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)[1].tolist() == [1, 2]


def test_every_operator_has_the_name_that_mmcv_looks_up() -> None:
    sources = ''.join(path.read_text(encoding='utf-8') for path in Path(mmcv.ops.__file__).parent.glob('*.py'))
    called = set(re.findall(r'ext_module\.(\w+)', sources))
    assert OPERATORS.keys() <= called
    assert all(operator.__name__ == name for name, operator in OPERATORS.items())


@not_compiled
def test_missing_operators_name_themselves_and_the_way_out() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0, 0.3]])
    with pytest.raises(NotImplementedError, match="'box_iou_rotated' .* no stand-in.*pip install"):
        mmcv.ops.box_iou_rotated(boxes, boxes)
    extension = sys.modules[NAME]
    with pytest.raises(NotImplementedError, match="'any_name'"):
        extension.any_name(1, b=2)
    with pytest.raises(AttributeError):
        extension.__wrapped__  # noqa: B018 - asking is the test


@not_compiled
def test_environment_reports_say_that_nothing_is_compiled() -> None:
    assert mmcv.ops.get_compiler_version() == mmcv.ops.get_compiling_cuda_version() == 'not compiled'


def test_installing_again_does_nothing() -> None:
    before = sys.modules[NAME]
    assert install() is False
    assert sys.modules[NAME] is before


def test_a_compiled_extension_keeps_its_operators_and_gets_tensors_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    extension = types.ModuleType(NAME)
    extension.nms = lambda boxes: boxes.is_contiguous()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, NAME, extension)
    assert install() is False
    assert sys.modules[NAME] is extension
    assert extension.nms(torch.zeros(3, 2).t()) and not hasattr(extension, 'softnms')


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


@not_compiled
@pytest.mark.parametrize(('first', 'is_late'), [
    ('import internvl_dense.openmmlab', False),
    ('import mmdet', False),
    ('import mmdet.structures', True),
    ('import contextlib\nwith contextlib.suppress(ImportError): import mmdet.models', True),
])
def test_detection_is_refused_where_it_came_first(first: str, is_late: bool) -> None:
    """Without the stand-in `import mmdet.models` fails, but its modules keep errors in the place of operators."""
    result = fresh(f"""
{first}
import internvl_dense.openmmlab
from internvl_dense.openmmlab.ops_fallback import require_detection
require_detection()
""")
    if is_late:
        assert 'UserError: mmdet' in result.stderr and 'Import internvl_dense.openmmlab first' in result.stderr
    else:
        assert result.returncode == 0, result.stderr


@not_compiled
def test_modules_imported_too_early_hold_errors_for_good() -> None:
    """What `require_detection` spares the user: the operator is there, and mmdetection says that it is not."""
    result = fresh("""
import mmdet.structures.mask.structures as masks
import internvl_dense.openmmlab
masks.roi_align()
""")
    assert 'RuntimeError: roi_align requires mmcv to be compiled' in result.stderr
