# A linear head on the frozen trunk of the demo: test mIoU 66.5 (docs/results.md).
# 600 iterations x 8 images = 12 epochs of 400 images.
# python tools/train.py configs/demo/linear_probing_internvit_debug_demo.py   (after python tools/demo.py)
_base_ = ['../_base_/models/linear.py', '../_base_/datasets/demo.py', '../_base_/schedules/adamw_demo.py',
          '../_base_/runtime.py']
model = dict(
    backbone=dict(variant='internvit_debug', weights='work_dirs/demo/iter_500.pth'),
    decode_head=dict(num_classes={{_base_.num_classes}}),
    data_preprocessor=dict(size={{_base_.crop_size}}),
    test_cfg=dict(mode='whole'))
optim_wrapper = dict(optimizer=dict(lr=2e-2, weight_decay=0.0))
param_scheduler = [dict(type='WarmupPolyLR', max_iters=600, warmup_iters=20, warmup_ratio=1e-3)]
train_cfg = dict(max_iters=600, val_interval=600)
default_hooks = dict(checkpoint=dict(interval=600))
