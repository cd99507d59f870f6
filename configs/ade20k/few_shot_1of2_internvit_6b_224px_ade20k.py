# Few-shot: all of InternViT-6B-224px and a linear head tuned on 1/2 of ADE20K: mIoU 55.8, single-scale.
# 8 GPUs x 2 images x 40k iterations = 63 epochs of 10,105 images; 5,907 M parameters train.
# tools/dist_train.sh configs/ade20k/few_shot_1of2_internvit_6b_224px_ade20k.py 8 --amp
_base_ = ['few_shot_1of16_internvit_6b_224px_ade20k.py']
published = dict(mIoU=55.8)
train_dataloader = dict(dataset=dict(ann_file='{{fileDirname}}/few_shot/1of2_seed0.txt'))
param_scheduler = [dict(type='WarmupPolyLR', max_iters=40000, warmup_iters=800, warmup_ratio=1e-6)]
train_cfg = dict(max_iters=40000)
