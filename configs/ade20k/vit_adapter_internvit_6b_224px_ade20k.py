# ViT-Adapter (frozen trunk, UperNet) of InternViT-6B-224px on ADE20K: mIoU 58.1, single-scale.
# 8 GPUs x 2 images x 80k iterations = 63 epochs of 20,210 images; 501 M of 6,407 M parameters train.
# tools/dist_train.sh configs/ade20k/vit_adapter_internvit_6b_224px_ade20k.py 8 --amp
_base_ = ['../_base_/recipes/vit_adapter.py', '../_base_/datasets/ade20k_512.py']
published = dict(mIoU=58.1, images=2000, source='README of OpenGVLab/InternVL-MMDetSeg')
model = dict(
    numerics='published',
    decode_head=dict(num_classes={{_base_.num_classes}}),
    auxiliary_head=dict(num_classes={{_base_.num_classes}}),
    data_preprocessor=dict(size={{_base_.crop_size}}),
    test_cfg=dict(crop_size={{_base_.crop_size}}, stride={{_base_.slide_stride}}))
