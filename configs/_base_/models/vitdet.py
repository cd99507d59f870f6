# ViTDet (Li et al., 2022): windows with a few global blocks, the simple pyramid, Mask R-CNN with channel norms.
_base_ = ['./mask_rcnn.py']
model = dict(
    backbone=dict(type='InternViT', out_indices='last'),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', out_channels=256, num_outs=5),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=dict(type='LN2d', eps=1e-6)),
        mask_head=dict(norm_cfg=dict(type='LN2d', eps=1e-6))))
