# Head tuning (frozen trunk, UperNet) of InternViT-6B-224px on ADE20K: mIoU 54.9, single-scale (InternVL-MMDetSeg).
# 8 GPUs x 2 images x 80k iterations = 63 epochs of 20,210 images; 480 M of 6,386 M parameters train.
# tools/dist_train.sh configs/ade20k/head_tuning_internvit_6b_224px_ade20k.py 8
_base_ = ['../_base_/models/upernet.py', '../_base_/datasets/ade20k_504.py', '../_base_/schedules/adamw_80k.py',
          '../_base_/runtime.py']
model = dict(
    backbone=dict(variant='internvit_6b_224px', weights='pretrained/intern_vit_6b_224px.pth', image_size=504,
                  frozen=True, dtype='bf16'),
    decode_head=dict(num_classes={{_base_.num_classes}}),
    auxiliary_head=dict(num_classes={{_base_.num_classes}}, in_index=1),
    data_preprocessor=dict(size={{_base_.crop_size}}),
    test_cfg=dict(crop_size={{_base_.crop_size}}, stride={{_base_.slide_stride}}))
