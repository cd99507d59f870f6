# Linear probing of InternViT-6B-448px-V1-2 on ADE20K: mIoU published, not transcribed.
# 8 GPUs x 2 images x 80k iterations = 63 epochs of 20,210 images; 0.49 M of 5,538 M parameters train.
# tools/dist_train.sh configs/ade20k/linear_probing_internvit_6b_448px_v1_2_ade20k.py 8
_base_ = ['linear_probing_internvit_6b_224px_ade20k.py']
published = 'arXiv 2412.05271, Table 15, not transcribed'
model = dict(backbone=dict(variant='internvit_6b_448px_v1_2'), numerics='fast')
