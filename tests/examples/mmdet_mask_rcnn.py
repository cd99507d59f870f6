_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['internvl_dense.openmmlab.det'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type='InternViTPyramid', variant='internvit_debug', patch_size=16, weights='random'),
    neck=dict(in_channels=[128, 128, 128, 128]))
