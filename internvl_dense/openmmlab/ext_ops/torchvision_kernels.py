"""torchvision's kernels where they are installed, work and compute exactly what mmcv's do.

Used for float32 alone: there mmcv's and torchvision's kernels take the same steps. Not used for `nms` with an offset,
for the maximum of RoIAlign, for RoIAlign on a CPU, where its kernel is slower than sums of rows, nor for deformable
convolution, whose gradient differs for samples exactly one pixel outside, where a freshly initialised layer has many.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import torch

from internvl_dense.openmmlab.ext_ops.computing import single
from internvl_dense.openmmlab.ext_ops.roi_grid import Pooling


@functools.cache
def why_not() -> str:
    """The reason why torchvision's kernels cannot be used, empty where they can."""
    if importlib.util.find_spec('torchvision') is None:
        return 'torchvision is not installed'
    try:
        importlib.import_module('torchvision.ops')  # registers the kernels
        nothing = torch.zeros(0, 4)
        torch.ops.torchvision.nms(nothing, nothing[:, 0], 0.5)
        torch.ops.torchvision.roi_align(torch.zeros(1, 1, 2, 2), torch.zeros(0, 5), 1.0, 1, 1, 0, True)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # built for another torch, mostly
        return f'torchvision does not work with torch {torch.__version__}: {error}'
    return ''


def fit_nms(bboxes: torch.Tensor, scores: torch.Tensor, offset: int) -> bool:
    """Whether `nms` here gives what the operator of this name is to give."""
    return offset == 0 and _are_single(bboxes, scores) and not why_not()


def fit_roi_align(features: torch.Tensor, rois: torch.Tensor) -> bool:
    """Whether RoIAlign here gives what the operator is to give, and is worth it.

    Its gradient adds in any order, so it is not used where torch was told to be deterministic.
    """
    is_free = features.is_cuda and not torch.are_deterministic_algorithms_enabled()
    return is_free and _are_single(features, rois) and not why_not()


def _are_single(*tensors: torch.Tensor) -> bool:
    return all(tensor.dtype == torch.float32 for tensor in tensors)


def nms(bboxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the boxes that stay; the threshold must be a float32 number, as overlaps are."""
    kept: torch.Tensor = torch.ops.torchvision.nms(bboxes, scores, iou_threshold)
    return kept


def roi_align(input: torch.Tensor, rois: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """(K, C, h, w)."""
    return _roi_operator().roi_align(
        input, rois, single(pooling.spatial_scale), pooling.height, pooling.width, pooling.sampling_ratio,
        pooling.aligned)


def roi_align_backward(
    grad_output: torch.Tensor, rois: torch.Tensor, shape: torch.Size, pooling: Pooling
) -> torch.Tensor:
    """Gradient of the map, of the given shape."""
    return _roi_operator()._roi_align_backward(
        grad_output, rois, single(pooling.spatial_scale), pooling.height, pooling.width, *shape,
        pooling.sampling_ratio, pooling.aligned)


def _roi_operator() -> Any:
    return torch.ops.torchvision
