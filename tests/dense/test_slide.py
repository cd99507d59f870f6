"""Sliding windows: coverage, batching, averages."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_dense.dense.slide import slide_inference, slide_windows
from internvl_dense.errors import UserError

Size = tuple[int, int]
SIDES = st.integers(1, 24)


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Size, Size, Size]:
    """Image, crop and stride with 1 <= stride <= crop."""
    size, crop = draw(st.tuples(SIDES, SIDES)), draw(st.tuples(SIDES, SIDES))
    stride = draw(st.tuples(st.integers(1, crop[0]), st.integers(1, crop[1])))
    return size, crop, stride


class Logits:
    """Two classes from a pixel and from the mean of its window, so that windows disagree; notes its batch sizes."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(crops))
        means = torch.stack([one.double().mean() for one in crops]).float()  # one by one: a sum over a batch may differ
        red, green = crops[:, 0], crops[:, 1]
        return torch.stack([red * 2 + means[:, None, None], green - means[:, None, None]], dim=1)


def one_by_one(image: torch.Tensor, crop: Size, stride: Size) -> torch.Tensor:
    """Logits of each pixel averaged over the windows that hold it, in the plainest way."""
    sums = torch.zeros(len(image), 2, *image.shape[2:])
    counts = torch.zeros(image.shape[2:])
    predict = Logits()
    for y1, y2, x1, x2 in slide_windows(tuple(image.shape[2:]), crop, stride):
        counts[y1:y2, x1:x2] += 1
        for b in range(len(image)):
            sums[b, :, y1:y2, x1:x2] += predict(image[b:b + 1, :, y1:y2, x1:x2])[0]
    return sums / counts


@given(geometries())
def test_windows_cover_every_pixel_and_stay_inside(geometry: tuple[Size, Size, Size]) -> None:
    size, crop, stride = geometry
    windows = slide_windows(size, crop, stride)
    counts = torch.zeros(size, dtype=torch.int64)
    for y1, y2, x1, x2 in windows:
        assert 0 <= y1 < y2 <= size[0] and 0 <= x1 < x2 <= size[1]
        assert (y2 - y1, x2 - x1) == (min(crop[0], size[0]), min(crop[1], size[1]))
        counts[y1:y2, x1:x2] += 1
    assert int(counts.min()) >= 1
    assert len(set(windows)) == len(windows)
    assert windows == sorted(windows)
    rows, columns = ((max(side - window, 0) + step - 1) // step + 1
                     for side, window, step in zip(size, crop, stride, strict=True))
    assert len(windows) == rows * columns


@settings(max_examples=40, deadline=None)
@given(geometries(), st.integers(1, 3), st.integers(1, 7))
def test_batches_equal_one_window_at_a_time(
    geometry: tuple[Size, Size, Size], batch: int, max_windows: int
) -> None:
    size, crop, stride = geometry
    image = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    predict = Logits()
    logits = slide_inference(image, predict, 2, crop, stride, max_windows)
    assert torch.equal(logits, one_by_one(image, crop, stride))
    jobs = len(slide_windows(size, crop, stride)) * batch
    assert sum(predict.batches) == jobs
    assert len(predict.batches) == -(-jobs // max_windows)
    assert max(predict.batches) <= max_windows


@settings(max_examples=20, deadline=None)
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES))
def test_a_crop_as_large_as_the_image_is_whole_inference(size: Size, more: Size) -> None:
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    crop = (size[0] + more[0] - 1, size[1] + more[1] - 1)
    predict = Logits()
    assert torch.equal(slide_inference(image, predict, 2, crop, crop), Logits()(image))
    assert predict.batches == [2]


def test_windows_of_the_published_setting() -> None:
    assert slide_windows((504, 672), (504, 504), (322, 322)) == [(0, 504, 0, 504), (0, 504, 168, 672)]


def test_the_sum_is_fp32_whatever_the_logits_are() -> None:
    image = torch.randn(1, 3, 8, 12).bfloat16()
    logits = slide_inference(image, lambda crops: crops[:, :2], 2, (8, 8), (4, 4))
    assert logits.dtype == torch.float32
    assert torch.equal(logits, image[:, :2].float())


@pytest.mark.parametrize('stride', [(9, 4), (4, 9), (0, 4), (4, -1)])
def test_gaps_are_refused(stride: Size) -> None:
    with pytest.raises(UserError) as error:
        slide_windows((20, 20), (8, 8), stride)
    assert str(error.value) == f'stride {stride} of the sliding window must be from 1 to its crop size (8, 8)'
