# Full tuning (UperNet) of InternViT-6B-448px-V1-0 on ADE20K: mIoU published, not transcribed.
# 8 GPUs x 2 images x 80k iterations = 63 epochs of 20,210 images; 6,017 M parameters train.
# tools/dist_train.sh configs/ade20k/full_tuning_internvit_6b_448px_v1_0_ade20k.py 8 --amp
_base_ = ['full_tuning_internvit_6b_224px_ade20k.py']
published = 'arXiv 2412.05271, Table 15, not transcribed'
model = dict(backbone=dict(variant='internvit_6b_448px_v1_0'), numerics='fast')
