# internvit_debug + UperNet on the sample data, from scratch: test mIoU 80.5 (docs/results.md).
# 500 iterations x 8 images = 10 epochs of 400 images.
# python tools/train.py configs/demo/upernet_internvit_debug_demo.py
_base_ = ['../_base_/models/upernet.py', '../_base_/datasets/demo.py', '../_base_/schedules/adamw_demo.py',
          '../_base_/runtime.py']
model = dict(
    backbone=dict(variant='internvit_debug', weights='random'),
    decode_head=dict(num_classes={{_base_.num_classes}}, channels=64),
    auxiliary_head=dict(num_classes={{_base_.num_classes}}, channels=64),
    data_preprocessor=dict(size={{_base_.crop_size}}),
    test_cfg=dict(mode='whole'))
default_hooks = dict(checkpoint=dict(interval=250))
