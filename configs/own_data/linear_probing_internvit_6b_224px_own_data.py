# Linear probing of InternViT-6B-224px on your images: mIoU depends on them. One GPU; see docs/data.md.
# 100 epochs in iterations of 2 images, 8 of them accumulated to 16 images a step.
# python tools/train.py configs/own_data/linear_probing_internvit_6b_224px_own_data.py --data-root FOLDER
_base_ = ['../_base_/models/linear.py', '../_base_/datasets/own_data.py', '../_base_/schedules/adamw_100_epochs.py',
          '../_base_/runtime.py']
model = dict(
    backbone=dict(variant='internvit_6b_224px', image_size=504, dtype='bf16'),
    decode_head=dict(num_classes={{_base_.num_classes}}),
    data_preprocessor=dict(size={{_base_.crop_size}}),
    test_cfg=dict(crop_size={{_base_.crop_size}}, stride={{_base_.slide_stride}}))
optim_wrapper = dict(accumulative_counts=8, optimizer=dict(weight_decay=0.0))
default_hooks = dict(checkpoint=dict(interval=None))
