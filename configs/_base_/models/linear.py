# A frozen InternViT and a linear head on one map: batch norm, then a 1 x 1 convolution.
model = dict(
    type='DenseSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        pad_val=0, seg_pad_val=255),
    backbone=dict(type='InternViT', out_indices='probe', frozen=True),
    decode_head=dict(
        type='LinearHead', norm_cfg=dict(type='SyncBN', requires_grad=True), align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False)),
    train_cfg=dict(),
    test_cfg=dict(mode='slide'))
