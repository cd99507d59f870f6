# Head tuning (frozen InternViT-6B-224px, UperNet of 256 channels) on your images: mIoU depends on them. One GPU.
# 100 epochs in iterations of 2 images, 8 of them accumulated to 16 images a step.
# python tools/train.py configs/own_data/head_tuning_internvit_6b_224px_own_data.py --data-root FOLDER --amp
_base_ = ['../_base_/small_gpu.py', '../_base_/datasets/own_data.py']
model = dict(
    backbone=dict(variant='internvit_6b_224px', image_size=504, frozen=True, dtype='bf16'),
    decode_head=dict(num_classes={{_base_.num_classes}}),
    auxiliary_head=dict(num_classes={{_base_.num_classes}}),
    data_preprocessor=dict(size={{_base_.crop_size}}),
    test_cfg=dict(crop_size={{_base_.crop_size}}, stride={{_base_.slide_stride}}))
