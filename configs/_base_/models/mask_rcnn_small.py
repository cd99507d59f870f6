# Mask R-CNN for a trunk that trains on a CPU: 64 channels, few regions, one box and one mask for all classes.
_base_ = ['./mask_rcnn.py']
model = dict(
    neck=dict(out_channels=64, num_outs=4, norm_cfg=dict(type='GN', num_groups=8)),
    rpn_head=dict(feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(fc_out_channels=256, reg_class_agnostic=True),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(num_convs=2, conv_out_channels=64, class_agnostic=True)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=300, max_per_img=200), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=200)))
