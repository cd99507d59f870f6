# Full tuning of InternViT-300M-448px + UperNet of 256 channels on your images: mIoU depends on them. One GPU.
# 100 epochs in iterations of 2 images, 8 of them accumulated to 16 images a step.
# python tools/train.py configs/own_data/full_tuning_internvit_300m_448px_own_data.py --data-root FOLDER --amp
_base_ = ['head_tuning_internvit_6b_224px_own_data.py']
model = dict(backbone=dict(variant='internvit_300m_448px', frozen=False, dtype='fp32', drop_path_rate=0.1))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.9))
