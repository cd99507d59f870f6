# A small InternViT (192 wide, 6 blocks) + UperNet on CamVid, from scratch on a CPU: val mIoU not yet measured.
# 1,400 iterations x 8 images = 30 epochs of 367 images.
# python tools/train.py THIS_FILE --amp
_base_ = ['../_base_/models/upernet.py', '../_base_/datasets/camvid.py', '../_base_/schedules/adamw_demo.py',
          '../_base_/runtime.py']
model = dict(
    backbone=dict(variant='internvit_debug', embed_dim=192, depth=6, num_heads=6, image_size=336),
    decode_head=dict(num_classes={{_base_.num_classes}}, channels=64, dropout_ratio=0.0),
    auxiliary_head=None,
    data_preprocessor=dict(size={{_base_.crop_size}}),
    test_cfg=dict(crop_size={{_base_.crop_size}}, stride={{_base_.slide_stride}}))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [dict(type='WarmupPolyLR', max_iters=1400, warmup_iters=70, warmup_ratio=1e-3)]
train_cfg = dict(max_iters=1400, val_interval=350)
