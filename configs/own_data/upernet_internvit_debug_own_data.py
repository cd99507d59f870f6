# internvit_debug + UperNet of 64 channels from scratch, on a CPU: tries your images and labels before a GPU is rented.
# 10 epochs in iterations of 2 images; mIoU is a sign of life, not a result.
# python tools/train.py configs/own_data/upernet_internvit_debug_own_data.py --data-root FOLDER
_base_ = ['head_tuning_internvit_6b_224px_own_data.py']
epochs = dict(total=10)
model = dict(
    backbone=dict(variant='internvit_debug', weights='random', frozen=False, dtype='fp32'),
    decode_head=dict(channels=64), auxiliary_head=dict(channels=64))
optim_wrapper = dict(accumulative_counts=1, optimizer=dict(lr=1e-3))
