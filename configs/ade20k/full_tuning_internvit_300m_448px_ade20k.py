# Full tuning (UperNet) of InternViT-300M-448px on ADE20K: mIoU not published.
# 8 GPUs x 2 images x 80k iterations = 63 epochs of 20,210 images; 590 M parameters train.
# tools/dist_train.sh configs/ade20k/full_tuning_internvit_300m_448px_ade20k.py 8 --amp
_base_ = ['full_tuning_internvit_6b_224px_ade20k.py']
published = 'not published'
model = dict(backbone=dict(variant='internvit_300m_448px'), numerics='fast')
