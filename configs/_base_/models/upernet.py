# InternViT, its four-map pyramid and UperNet with an auxiliary FCN head on one map, which the numerics choose.
model = dict(
    type='DenseSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        pad_val=0, seg_pad_val=255),
    backbone=dict(type='InternViT', out_indices='stages'),
    neck=dict(type='ViTFeaturePyramid'),
    decode_head=dict(
        type='UPerHead', in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6), channels=1536, dropout_ratio=0.1,
        norm_cfg=dict(type='SyncBN', requires_grad=True), align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(
        type='FCNHead', channels=1536, num_convs=1, concat_input=False, dropout_ratio=0.1,
        norm_cfg=dict(type='SyncBN', requires_grad=True), align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)),
    train_cfg=dict(),
    test_cfg=dict(mode='slide'))
