# Mask2Former on a frozen InternViT-6B-224px on ADE20K: mIoU not published.
# 8 GPUs x 2 images x 80k iterations = 63 epochs of 20,210 images.
# tools/dist_train.sh configs/ade20k/mask2former_internvit_6b_224px_ade20k.py 8 --amp
_base_ = ['../_base_/models/mask2former.py', '../_base_/datasets/ade20k_504.py', '../_base_/schedules/adamw_80k.py',
          '../_base_/runtime.py']
published = 'not published'
custom_imports = dict(imports=['internvl_dense.openmmlab.det'], allow_failed_imports=False)
model = dict(
    backbone=dict(variant='internvit_6b_224px', image_size=504, frozen=True, dtype='bf16'),
    decode_head=dict(num_classes={{_base_.num_classes}},
                     loss_cls=dict(class_weight=[1.0] * 150 + [0.1])),
    data_preprocessor=dict(size={{_base_.crop_size}}),
    test_cfg=dict(crop_size={{_base_.crop_size}}, stride={{_base_.slide_stride}}))
optim_wrapper = dict(optimizer=dict(lr=1e-4), clip_grad=dict(max_norm=0.01))
