"""Sizes, pixels and windows of the published test pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

import internvl_dense.openmmlab  # noqa: F401  registers the transforms
from internvl_dense.dense.slide import slide_windows
from internvl_dense.openmmlab.configs import configs_root

Golden = Callable[[str], Any]
CROP, STRIDE = (504, 504), (322, 322)
FP32 = 1e-7  # the published scale factors are rounded to it
ADAPTER_SCALE, ADAPTER_CROP, ADAPTER_STRIDE = (2048, 512), (512, 512), (341, 341)


def run(results: dict[str, Any], **config: Any) -> dict[str, Any]:
    return TRANSFORMS.build({'_scope_': 'mmseg', **config}).transform(results)


def blank(size: tuple[int, int]) -> dict[str, Any]:
    """A picture of that size; one channel keeps the long ones cheap."""
    return {'img': np.zeros(size, np.uint8), 'img_shape': size, 'ori_shape': size}


def to_multiple(results: dict[str, Any]) -> dict[str, Any]:
    """What the reference config has for `ResizeToMultiple`."""
    config = Config.fromfile(configs_root() / '_base_' / 'datasets' / 'ade20k_504.py')
    assert config.test_pipeline[1].type == 'SETRResize'
    return run(results, **config.test_pipeline[2])


def test_sizes_and_windows_of_the_published_pipeline(golden: Golden) -> None:
    rows = golden('resize_and_windows')['rows']
    assert len(rows) == 48
    for row in rows:
        results = run(blank(row['ori']), type='SETRResize', scale=row['scale'], crop_size=CROP)
        assert results['img'].shape[:2] == results['img_shape'] == row['setr'], row['ori']
        assert (*results['scale_factor'], *results['scale_factor']) == pytest.approx(row['scale_factor'], rel=FP32)
        results = to_multiple(results)
        assert results['img'].shape[:2] == results['img_shape'] == row['setr_then_multiple14'], row['ori']
        assert slide_windows(row['setr_then_multiple14'], CROP, STRIDE) == row['windows_504_322'], row['ori']


def test_plain_resize_of_the_few_shot_pipelines(golden: Golden) -> None:
    for row in golden('resize_and_windows')['rows']:
        results = run(blank(row['ori']), type='Resize', scale=row['scale'], keep_ratio=True)
        assert results['img'].shape[:2] == row['plain_resize'], row['ori']
        assert to_multiple(results)['img'].shape[:2] == row['plain_then_multiple14'], row['ori']


def test_sizes_and_windows_of_512_px(golden: Golden) -> None:
    rows = golden('resize_and_windows')['adapter_rows']
    assert len(rows) == 16
    for row in rows:
        results = run(blank(row['ori']), type='SETRResize', scale=ADAPTER_SCALE, crop_size=ADAPTER_CROP)
        assert results['img'].shape[:2] == row['setr'], row['ori']
        assert slide_windows(row['setr'], ADAPTER_CROP, ADAPTER_STRIDE) == row['windows_512_341'], row['ori']


def test_pixels_are_those_of_the_published_pipeline(golden: Golden) -> None:
    data = golden('resize_and_windows')
    case = data['pixel_case']
    image = data['input'].numpy()
    results = {'img': image, 'img_shape': image.shape[:2]}
    results = run(results, type='SETRResize', scale=case['scale'], crop_size=case['crop_size'])
    np.testing.assert_array_equal(results['img'], data['outputs'][0].numpy())
    np.testing.assert_array_equal(to_multiple(results)['img'], data['outputs'][1].numpy())
