# internvit_debug + Mask R-CNN on the sample data's instances, from scratch: box AP50 and mask AP50 in docs/results.md.
# 1,000 iterations x 4 images = 10 epochs of 400 images.
# python tools/train.py configs/demo/mask_rcnn_internvit_debug_demo.py
_base_ = ['../_base_/models/mask_rcnn_small.py', '../_base_/datasets/demo_instance.py',
          '../_base_/schedules/adamw_demo.py', '../_base_/runtime_det.py']
model = dict(num_classes={{_base_.num_classes}}, backbone=dict(variant='internvit_debug', weights='random'))
param_scheduler = [dict(type='WarmupPolyLR', max_iters=1000, warmup_iters=50, warmup_ratio=1e-3)]
train_cfg = dict(max_iters=1000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
