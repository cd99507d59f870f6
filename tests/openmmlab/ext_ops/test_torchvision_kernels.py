"""torchvision's kernels stand in only where they agree; the rest of the file needs one that works."""

from __future__ import annotations

import pytest
import torch

from internvl_dense.openmmlab.ext_ops import nms, roi_align, torchvision_kernels
from internvl_dense.openmmlab.ext_ops.roi_grid import Pooling

CLOSE = 2e-5
DEVICES = ['cpu', pytest.param('cuda', marks=[pytest.mark.gpu, pytest.mark.skipif(
    not torch.cuda.is_available(), reason='no CUDA device')])]
REASON = torchvision_kernels.why_not()
needs_torchvision = pytest.mark.skipif(bool(REASON), reason=REASON or 'works')


def boxes_and_scores(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    corner, size = torch.randint(40, (300, 2)).float(), torch.randint(-1, 20, (300, 2)).float()
    return torch.cat([corner, corner + size], 1).to(device), (torch.randint(20, (300,)) / 20).to(device)


def test_the_reason_is_a_sentence_and_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision_kernels.why_not.cache_clear()
    monkeypatch.setattr(torchvision_kernels.importlib.util, 'find_spec', lambda name: None)
    assert torchvision_kernels.why_not() == 'torchvision is not installed'
    monkeypatch.undo()
    assert torchvision_kernels.why_not() == 'torchvision is not installed'
    torchvision_kernels.why_not.cache_clear()


def test_a_torchvision_that_does_not_load_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError('operator torchvision::nms does not exist')

    torchvision_kernels.why_not.cache_clear()
    monkeypatch.setattr(torchvision_kernels.importlib.util, 'find_spec', lambda name: name)
    monkeypatch.setattr(torchvision_kernels.importlib, 'import_module', fail)
    assert 'does not work with torch' in torchvision_kernels.why_not()
    assert not torchvision_kernels.fit_nms(torch.zeros(1, 4), torch.zeros(1), 0)
    torchvision_kernels.why_not.cache_clear()


@needs_torchvision
def test_only_where_they_agree() -> None:
    boxes, scores = boxes_and_scores('cpu')
    assert torchvision_kernels.fit_nms(boxes, scores, 0)
    assert not torchvision_kernels.fit_nms(boxes, scores, 1)
    assert not torchvision_kernels.fit_nms(boxes.double(), scores.double(), 0)
    assert not torchvision_kernels.fit_roi_align(torch.zeros(1, 1, 2, 2), torch.zeros(0, 5))  # ours is faster on a CPU


@needs_torchvision
@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.7, 1 / 3])
def test_nms(monkeypatch: pytest.MonkeyPatch, device: str, threshold: float) -> None:
    boxes, scores = boxes_and_scores(device)
    theirs = nms.nms(boxes, scores, threshold)
    monkeypatch.setattr(torchvision_kernels, 'fit_nms', lambda *args: False)
    assert nms.nms(boxes, scores, threshold).equal(theirs)


@needs_torchvision
@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align(device: str, ratio: int, aligned: bool) -> None:
    x = torch.randn(2, 3, 12, 14, device=device)
    boxes = boxes_and_scores(device)[0]
    boxes = torch.cat([boxes[:, :2] - 8, boxes[:, 2:].maximum(boxes[:, :2])], 1)
    rois = torch.cat([torch.randint(2, (300, 1), device=device).float(), boxes], 1)
    pooling = Pooling(3, 2, 0.3, ratio, aligned)
    theirs, ours = torchvision_kernels.roi_align(x, rois, pooling), torch.zeros(300, 3, 3, 2, device=device)
    roi_align._forward_mean(x, rois, ours, pooling)
    assert (ours - theirs).abs().max() < CLOSE
    weights = torch.randn_like(ours)
    gradient = torchvision_kernels.roi_align_backward(weights, rois, x.shape, pooling)
    difference = roi_align._backward_mean(weights, rois, x.shape, pooling) - gradient
    assert difference.abs().max() < CLOSE * gradient.abs().max()
