# The Mask R-CNN of mask_rcnn_internvit_debug_camvid with ViT-Adapter in place of the pyramid: box AP50 in
# docs/results.md. 260 iterations x 4 images = 3 epochs of 367 images.
# python tools/train.py configs/camvid/mask_rcnn_adapter_internvit_debug_camvid.py --amp
_base_ = ['./mask_rcnn_internvit_debug_camvid.py']
model = dict(
    backbone=dict(
        type='InternViTAdapter', conv_inplane=16, deform_ratio=0.5, init_values=0.1, out_indices=(0, 1, 2, 3)))
param_scheduler = [dict(type='WarmupPolyLR', max_iters=260, warmup_iters=20, warmup_ratio=1e-3)]
train_cfg = dict(max_iters=260, val_interval=260)
