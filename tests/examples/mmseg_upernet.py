_base_ = './upernet_r50_4xb4-80k_ade20k-512x512.py'  # mmsegmentation's, this file lies beside it
custom_imports = dict(imports=['internvl_dense.openmmlab'], allow_failed_imports=False)
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, type='InternViTPyramid', variant='internvit_debug', out_indices='stages',
                  weights='random'),
    decode_head=dict(in_channels=[128, 128, 128, 128]), auxiliary_head=dict(in_channels=128))
