"""mmcv's compiled deformable attention as one more kernel, where mmcv really is compiled."""

from __future__ import annotations

import importlib.util
import itertools

import torch

from internvl_dense.openmmlab.ops_fallback import NAME as EXTENSION
from internvl_dense.ops.deform_attn import DEFORM_KERNELS, DeformKernel, Shapes, load_kernels

DTYPES = (torch.float32, torch.float64)


def _why_not(value: torch.Tensor | None = None) -> str | None:
    spec = importlib.util.find_spec(EXTENSION)
    if spec is None or spec.origin is None:  # the stand-in of this project has no file
        return 'mmcv is installed without its compiled operators'
    if value is None:
        return None if torch.cuda.is_available() else 'there is no CUDA device'
    if not value.is_cuda or value.dtype not in DTYPES:
        return (f'its kernels know no bf16 and add up fp16 in fp16, so it takes fp32 or fp64 on a CUDA device, got '
                f'{value.dtype} on {value.device}')
    return None


def mmcv_deform_attn(
    value: torch.Tensor, shapes: Shapes, locations: torch.Tensor, weights: torch.Tensor,
) -> torch.Tensor:
    """See `internvl_dense.ops.deform_attn`; for fp32 and fp64 tensors on a CUDA device."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    cells = [height * width for height, width in shapes]
    starts = value.new_tensor([0, *itertools.accumulate(cells[:-1])], dtype=torch.long)
    sizes = value.new_tensor([list(shape) for shape in shapes], dtype=torch.long)
    # The step is the number of images in one launch; all of them, since it must divide the batch.
    out: torch.Tensor = MultiScaleDeformableAttnFunction.apply(
        value.contiguous(), sizes, starts, locations.contiguous(), weights.contiguous(), len(value))
    return out


load_kernels()
DEFORM_KERNELS.register('mmcv', DeformKernel('mmcv', mmcv_deform_attn, _why_not))
