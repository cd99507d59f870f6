"""Greedy and soft suppression against loops over boxes, with ties, degenerate boxes and none at all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms, nms, nms_match, soft_nms

from internvl_dense.openmmlab.ext_ops import nms as nms_module
from tests.openmmlab.ext_ops import references

EQUAL = 1e-12
coordinates = st.integers(-3, 12)  # a coarse grid: equal boxes, touching boxes and equal overlaps are common
boxes_of = st.lists(st.tuples(coordinates, coordinates, st.integers(-1, 9), st.integers(-1, 9), st.integers(0, 4)),
                    max_size=24)


def as_tensors(rows: list[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes, some of negative size, and scores with ties."""
    values = torch.tensor(rows, dtype=dtype).view(-1, 5)
    return torch.cat([values[:, :2], values[:, :2] + values[:, 2:4]], 1), values[:, 4] / 4


def random_boxes(count: int, span: float = 60, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    corner, size = torch.rand(count, 2, dtype=dtype) * span, torch.rand(count, 2, dtype=dtype) * 30
    return torch.cat([corner, corner + size], 1), torch.rand(count, dtype=dtype)


@settings(max_examples=60, deadline=None)
@given(boxes_of, st.sampled_from([0.0, 0.25, 0.5, 0.7]), st.sampled_from([0, 1]))
def test_nms_keeps_what_a_loop_keeps(rows: list[tuple[int, ...]], threshold: float, offset: int) -> None:
    boxes, scores = as_tensors(rows)
    kept = nms(boxes, scores, threshold, offset=offset)[1]
    assert kept.tolist() == references.nms(boxes, scores, threshold, offset)


@settings(max_examples=30, deadline=None)
@given(boxes_of, st.sampled_from([0.25, 0.5]))
def test_nms_match_forms_the_groups_of_a_loop(rows: list[tuple[int, ...]], threshold: float) -> None:
    boxes, scores = as_tensors(rows)
    dets = torch.cat([boxes, scores[:, None]], 1)
    assert [group.tolist() for group in nms_match(dets, threshold)] == references.nms_match(dets, threshold)


def test_an_overlap_of_exactly_the_threshold_stays_in_nms_and_goes_in_nms_match() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])  # iou 0.5
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.5)[1].tolist() == [0, 1]
    assert [g.tolist() for g in nms_match(torch.cat([boxes, scores[:, None]], 1), 0.5)] == [[0, 1]]


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores = random_boxes(150)
    dets = torch.cat([boxes, scores[:, None]], 1)
    kept, groups = nms(boxes, scores, 0.4)[1], nms_match(dets, 0.4)
    assert 30 < len(kept) < 120
    for block in ((1, 30), (7, 20), (150, 150)):
        monkeypatch.setattr(nms_module, 'CPU_BLOCK', block)
        assert nms(boxes, scores, 0.4)[1].equal(kept)
        assert all(a.equal(b) for a, b in zip(nms_match(dets, 0.4), groups, strict=True))


def test_a_chain_in_one_block_is_settled_link_by_link() -> None:
    """Each box overlaps only its neighbours: every second one goes, whatever came first in parallel."""
    left = torch.arange(101.0)
    boxes = torch.stack([left, torch.zeros(101), left + 2, torch.ones(101)], 1)
    assert nms(boxes, torch.linspace(1, 0, 101), 0.3)[1].tolist() == list(range(0, 101, 2))


def test_many_boxes_at_once() -> None:
    boxes, scores = random_boxes(5000, span=1500)
    kept = nms(boxes, scores, 0.5)[1]
    assert kept.tolist() == sorted(kept.tolist(), key=lambda i: -scores[i].item())
    assert len(nms(boxes[kept], scores[kept], 0.5)[1]) == len(kept)  # nothing is left to suppress


def test_classes_do_not_suppress_each_other() -> None:
    boxes, scores = random_boxes(120)
    labels = torch.randint(3, (120,))
    kept = batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=0.3))[1]
    by_class = [torch.nonzero(labels == c)[:, 0] for c in range(3)]
    apart = torch.cat([i[nms(boxes[i], scores[i], 0.3)[1]] for i in by_class])
    assert sorted(kept.tolist()) == sorted(apart.tolist())


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('offset', [0, 1])
def test_soft_nms_lowers_scores_as_a_loop_does(method: str, offset: int) -> None:
    for count in (0, 1, 2, 17, 40):
        boxes, scores = random_boxes(count, 30, torch.float64)
        dets, kept = soft_nms(boxes, scores, 0.3, 0.5, 0.1, method, offset)
        expected, indices = references.soft_nms(boxes, scores, 0.3, 0.5, 0.1, method, offset)
        assert kept.tolist() == indices
        assert (dets - torch.tensor(expected, dtype=torch.float64).view(-1, 5)).abs().sum() < EQUAL
        assert count < 17 or len(kept) < count


def test_soft_nms_breaks_ties_as_boxes_lie_in_memory() -> None:
    """The last boxes take the places of those that are dropped, so they come before their equals."""
    left = torch.tensor([0.0, 0, 0, 10, 20, 30])
    boxes = torch.stack([left, torch.zeros(6), left + 4, torch.ones(6)], 1)
    scores = torch.tensor([0.9, 0.8, 0.8, 0.5, 0.5, 0.5])
    assert soft_nms(boxes, scores, 0.5, 0.5, 0.1, 'naive')[1].tolist() == [0, 5, 4, 3]


def test_soft_nms_lowers_scores_from_an_overlap_of_exactly_the_threshold() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])  # iou 0.5
    assert soft_nms(boxes, torch.tensor([0.5, 0.25]), 0.5, method='linear')[0][:, 4].tolist() == [0.5, 0.125]


def test_soft_nms_with_boxes_without_area() -> None:
    boxes = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 3, 3]])  # iou of the first two: 0 / 0
    dets, kept = soft_nms(boxes, torch.tensor([0.5, 0.4, 0.9]), 0.3, method='linear')
    assert kept.tolist() == [2, 0, 1] and dets[:, 4].tolist() == torch.tensor([0.9, 0.5, 0.4]).tolist()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_narrow_numbers_are_compared_in_float32(dtype: torch.dtype) -> None:
    boxes, scores = (x.to(dtype) for x in random_boxes(60))
    assert nms(boxes, scores, 0.4)[1].equal(nms(boxes.float(), scores.float(), 0.4)[1])
    dets, kept = soft_nms(boxes, scores, 0.3)
    assert kept.equal(soft_nms(boxes.float(), scores.float(), 0.3)[1]) and dets.dtype == dtype


def test_no_boxes() -> None:
    boxes, scores = torch.zeros(0, 4), torch.zeros(0)
    for offset in (0, 1):
        dets, kept = nms(boxes, scores, 0.5, offset=offset)
        assert dets.shape == (0, 5) and kept.dtype == torch.int64 and not len(kept)
    assert soft_nms(boxes, scores)[1].shape == (0,)
