# A small InternViT (192 wide, 6 blocks) + Mask R-CNN on CamVid's instances, on a CPU: box AP50 in docs/results.md.
# 1,550 iterations x 4 images = 17 epochs of 367 images. The trunk starts from that of the segmentation run.
# python tools/train.py configs/camvid/mask_rcnn_internvit_debug_camvid.py --amp --weights CHECKPOINT
_base_ = ['../_base_/models/mask_rcnn_small.py', '../_base_/datasets/camvid_instance.py',
          '../_base_/schedules/adamw_demo.py', '../_base_/runtime_det.py']
model = dict(
    num_classes={{_base_.num_classes}},
    backbone=dict(variant='internvit_debug', embed_dim=192, depth=6, num_heads=6, image_size=336,
                  weights='work_dirs/upernet_internvit_debug_camvid/best_mIoU_iter_1000.pth'),
    train_cfg=dict(rcnn=dict(sampler=dict(num=128))))
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.85))
param_scheduler = [dict(type='WarmupPolyLR', max_iters=1550, warmup_iters=50, warmup_ratio=1e-3)]
train_cfg = dict(max_iters=1550, val_interval=1550)
default_hooks = dict(checkpoint=dict(interval=775))
