"""The operators of mmcv's compiled extension that mmdetection and mmsegmentation train and test with, in plain torch.

Each has the name and the arguments that `mmcv.ops` calls it with, computes float64 in float64 and everything narrower,
bfloat16 included, in float32, and gives the same result in every run. Those not in the table are missing for good;
the stand-in says so where they are called.

| Used by | Operators |
|---|---|
| every detector's post-processing | nms, softnms |
| Mask R-CNN, Cascade R-CNN and relatives; crops of mask targets | roi_align_* |
| feature extraction through RoIPool | roi_pool_* |
| RetinaNet, FCOS, DINO and relatives | sigmoid_focal_loss_*, softmax_focal_loss_* |
| Deformable DETR, DINO, the pixel decoder of Mask2Former, on CUDA | ms_deform_attn_* |
| DCN in ResNets, DyHead, TOOD, VFNet, RepPoints | deform_conv_*, modulated_deform_conv_* |
| the sampler of PISA | nms_match |
| GA-RPN and GA-RetinaNet | masked_* |
| PSANet | psamask_* |

point_sample, CrissCrossAttention, CornerPool and the CPU form of deformable attention are torch code in mmcv itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from internvl_dense.openmmlab.ext_ops import (
    deform_attn,
    deform_conv,
    focal_loss,
    masked_conv,
    nms,
    psa_mask,
    roi_align,
    roi_pool,
    soft_nms,
)

OPERATORS: dict[str, Callable[..., Any]] = {
    operator.__name__: operator
    for operator in (
        nms.nms,
        nms.nms_match,
        soft_nms.softnms,
        roi_align.roi_align_forward,
        roi_align.roi_align_backward,
        roi_pool.roi_pool_forward,
        roi_pool.roi_pool_backward,
        focal_loss.sigmoid_focal_loss_forward,
        focal_loss.sigmoid_focal_loss_backward,
        focal_loss.softmax_focal_loss_forward,
        focal_loss.softmax_focal_loss_backward,
        deform_attn.ms_deform_attn_forward,
        deform_attn.ms_deform_attn_backward,
        deform_conv.deform_conv_forward,
        deform_conv.deform_conv_backward_input,
        deform_conv.deform_conv_backward_parameters,
        deform_conv.modulated_deform_conv_forward,
        deform_conv.modulated_deform_conv_backward,
        masked_conv.masked_im2col_forward,
        masked_conv.masked_col2im_forward,
        psa_mask.psamask_forward,
        psa_mask.psamask_backward,
    )
}
