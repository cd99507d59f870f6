# InternViT-6B (224 px, patch 16, windows of 16, frozen) + DINO on COCO boxes: no AP published.
# 8 GPUs x 2 images x 87,960 iterations = 12 epochs of 117,266 images.
# tools/dist_train.sh configs/coco/dino_internvit_6b_224px_coco.py 8
_base_ = ['../_base_/models/dino.py', '../_base_/datasets/coco_instance.py', '../_base_/schedules/adamw_1x.py',
          '../_base_/runtime_det.py']
published = 'No AP published'
model = dict(
    num_classes={{_base_.num_classes}},
    backbone=dict(variant='internvit_6b_224px', patch_size=16, window_size=16, frozen=True, dtype='bf16'))
optim_wrapper = dict(clip_grad=dict(max_norm=0.1))
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
