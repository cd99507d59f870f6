# Few-shot: all of InternViT-6B-224px and a linear head tuned on 1/16 of ADE20K: mIoU 46.5, single-scale.
# 8 GPUs x 2 images x 5k iterations = 63 epochs of 1,263 images; 5,907 M parameters train.
# tools/dist_train.sh configs/ade20k/few_shot_1of16_internvit_6b_224px_ade20k.py 8 --amp
_base_ = ['full_tuning_internvit_6b_224px_ade20k.py']
published = dict(mIoU=46.5)
model = dict(
    backbone=dict(out_indices='last'), neck=None, auxiliary_head=None,
    decode_head=dict(_delete_=True, type='LinearHead', num_classes={{_base_.num_classes}},
                     loss_decode=dict(type='CrossEntropyLoss')))
train_dataloader = dict(dataset=dict(ann_file='{{fileDirname}}/few_shot/1of16_seed0.txt'))
param_scheduler = [dict(type='WarmupPolyLR', max_iters=5000, warmup_iters=100, warmup_ratio=1e-6)]
train_cfg = dict(max_iters=5000)
