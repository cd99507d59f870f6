"""Run by a Python whose mmcv is compiled: every operator with a CPU kernel, theirs against ours, in one process.

Prints JSON: for each operator and dtype the largest difference, relative to the largest expected value if that is above
1, and how many times as long ours took (median); then the operators that have no CPU kernel after all.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import mmcv._ext
import torch
from mmcv.ops import PSAMask, masked_conv2d, nms, nms_match, roi_align, roi_pool, sigmoid_focal_loss, soft_nms
from mmcv.ops.deform_conv import deform_conv2d
from mmcv.ops.modulated_deform_conv import modulated_deform_conv2d
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

from internvl_dense.openmmlab.ext_ops import OPERATORS

OURS = types.SimpleNamespace(**OPERATORS)
USERS = [importlib.import_module(f'mmcv.ops.{name}') for name in (
    'nms', 'roi_align', 'roi_pool', 'focal_loss', 'deform_conv', 'modulated_deform_conv', 'multi_scale_deform_attn',
    'psa_mask', 'masked_conv')]
Case = tuple[str, torch.dtype, Callable[[], list[torch.Tensor]]]
# stride, padding, dilation, groups, offset groups
LAYERS = [(1, 1, 1, 1, 1), ((2, 1), (0, 2), (1, 2), 2, 1), ((1, 2), (1, 0), (2, 1), 1, 2), (1, 1, 1, 4, 4)]


def use(extension: Any) -> None:
    for module in USERS:
        module.ext_module = extension


def with_gradients(result: torch.Tensor, *leaves: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    return [result.detach(), *torch.autograd.grad(result, leaves, weights)]


def leaf(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return values.to(dtype).requires_grad_()


def boxes(count: int, is_coarse: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Coarse ones are full of ties: equal boxes and overlaps, overlaps at the threshold, boxes without area."""
    corner, size, scores = torch.rand(count, 2) * 100, torch.rand(count, 2) * 40, torch.rand(count)
    if is_coarse:
        corner, size = (corner / 10).round(), (size / 10).round()
    return torch.cat([corner, corner + size], 1), scores


def suppression_cases() -> Iterator[Case]:
    for number in range(24):
        is_coarse, count = number % 2 == 0, (0, 1, 40, 300, 1200, 2500)[number // 2 % 6]
        b, s = boxes(count, is_coarse)
        ties = (s * 10).round() / 10
        s = ties if number % 3 == 0 else s
        threshold, offset = (0.0, 0.1, 0.3, 0.5, 0.7)[number % 5], number % 3 % 2
        yield 'nms', b.dtype, lambda b=b, s=s, t=threshold, o=offset: list(nms(b, s, t, offset=o))
        dets = torch.cat([b, s[:, None]], 1)
        yield 'nms_match', b.dtype, lambda d=dets, t=threshold: nms_match(d, t)
        for method in ('naive', 'linear', 'gaussian'):
            small = (b[:400], ties[:400], threshold, 0.5, 0.05, method, offset)
            yield f'softnms {method}', b.dtype, lambda args=small: list(soft_nms(*args))


def roi_align_cases(dtype: torch.dtype) -> Iterator[Case]:
    x = leaf(torch.randn(2, 8, 25, 30, dtype=torch.float64), dtype)
    corner, size = torch.rand(60, 2, dtype=torch.float64) * 140 - 20, torch.rand(60, 2, dtype=torch.float64) * 80
    size[:6] = 0
    corner[6:12] = -200
    rois = torch.cat([torch.randint(2, (60, 1)), corner, corner + size], 1)
    rois = torch.cat([rois, torch.tensor([[0.0, -300, -300, 500, 500], [1, 0, 0, 120, 100]])]).to(dtype)
    for mode in ('avg', 'max'):
        for ratio in (0, 1, 2, 5):
            for is_aligned in (True, False):
                chosen = rois[6:] if mode == 'max' else rois  # what an empty bin holds is explained in roi_align.py
                def run(mode: str = mode, ratio: int = ratio, is_aligned: bool = is_aligned,
                        rois: torch.Tensor = chosen) -> list[torch.Tensor]:
                    return with_gradients(roi_align(x, rois, (7, 5), 0.3, ratio, mode, is_aligned), x)

                yield f'roi_align {mode}', dtype, run
        yield 'roi_align argmax', dtype, lambda: largest(x.detach(), rois[6:])


def largest(x: torch.Tensor, rois: torch.Tensor) -> list[torch.Tensor]:
    output, y, z = (x.new_zeros(len(rois), x.shape[1], 7, 5) for _ in range(3))
    USERS[1].ext_module.roi_align_forward(
        x, rois, output, y, z, aligned_height=7, aligned_width=5, spatial_scale=0.3, sampling_ratio=2, pool_mode=0,
        aligned=True)
    return [output, y, z]


def deform_cases(dtype: torch.dtype) -> Iterator[Case]:
    for stride, padding, dilation, groups, parts in LAYERS:
        x, weight = leaf(torch.randn(2, 8, 13, 12, dtype=torch.float64), dtype), torch.randn(8, 8 // groups, 3, 2)
        weight = leaf(weight.double(), dtype)
        size = torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation, groups).shape[2:]
        mask, bias = leaf(torch.rand(2, parts * 6, *size), dtype), leaf(torch.randn(8), dtype)
        for spread in (0.0, 3.0):  # 0: every sample at a whole coordinate, as in a freshly initialised layer
            offset = leaf(torch.randn(2, parts * 12, *size) * spread, dtype)
            layer = (stride, padding, dilation, groups, parts)
            plain, full = (x, offset, weight), (x, offset, mask, weight, bias)
            yield 'deform_conv', dtype, lambda t=plain, v=layer: with_gradients(deform_conv2d(*t, *v), *t)
            yield ('modulated_deform_conv', dtype,
                   lambda t=full, v=layer: with_gradients(modulated_deform_conv2d(*t, *v), *t))


def mask_cases(dtype: torch.dtype) -> Iterator[Case]:
    x = leaf(torch.randn(1, 15, 6, 7), dtype)
    for kind in ('collect', 'distribute'):
        yield 'psamask', dtype, lambda kind=kind: with_gradients(PSAMask(kind, (3, 5))(x), x)


def cases() -> Iterator[Case]:
    yield from suppression_cases()
    for dtype in (torch.float64, torch.float32):
        for family in (roi_align_cases, deform_cases, mask_cases):
            yield from family(dtype)


def timed(extension: Any, run: Callable[[], Any]) -> tuple[Any, float]:
    use(extension)
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    if [t.shape for t in ours] != [t.shape for t in theirs]:
        return float('inf')
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b.numel()]
    if any(not a.is_floating_point() and not a.equal(b) for a, b in pairs):
        return float('inf')  # indices are equal or wrong
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in pairs) if pairs else 0.0


def without_kernel() -> list[str]:
    """Operators that the compiled extension refuses on a CPU."""
    x, rois, point = torch.randn(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 3, 3]]), torch.zeros(1, 1, 1, 1, 1, 2)
    runs = {
        'roi_pool': lambda: roi_pool(x, rois, 2),
        'sigmoid_focal_loss': lambda: sigmoid_focal_loss(x[0, 0], torch.zeros(4, dtype=torch.long)),
        'softmax_focal_loss': lambda: USERS[3].softmax_focal_loss(x[0, 0], torch.zeros(4, dtype=torch.long)),
        'ms_deform_attn': lambda: MultiScaleDeformableAttnFunction.apply(
            x.view(1, 16, 1, 1), torch.tensor([[4, 4]]), torch.tensor([0]), point, point[..., 0], 1),
        'masked_conv2d': lambda: masked_conv2d(x, torch.ones(1, 4, 4), torch.ones(1, 1, 1, 1), torch.zeros(1)),
    }
    use(mmcv._ext)
    refused = []
    for name, run in runs.items():
        try:
            run()
        except RuntimeError as error:
            refused.append(f'{name}: {str(error).splitlines()[0]}')
    return refused


def main() -> int:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    worst: dict[str, float] = {}
    ratios: dict[str, list[float]] = {}
    for name, dtype, run in cases():
        key = f'{name} {str(dtype).removeprefix("torch.")}'
        (theirs, slow), (ours, fast) = timed(mmcv._ext, run), timed(OURS, run)
        worst[key] = max(worst.get(key, 0.0), difference(list(ours), list(theirs)))
        ratios.setdefault(key, []).append(fast / slow)
    speed = {key: statistics.median(values) for key, values in ratios.items()}
    json.dump({'worst': worst, 'times': speed, 'without_kernel': without_kernel()}, sys.stdout)
    return 0


if __name__ == '__main__':
    sys.exit(main())
