# InternViT-6B (224 px, patch 16) tuned in full as ViTDet on COCO: large-scale jitter, no AP published.
# 8 GPUs x 8 images x 183,300 iterations = 100 epochs of 117,266 images.
# tools/dist_train.sh configs/coco/vitdet_internvit_6b_224px_coco.py 8
_base_ = ['../_base_/models/vitdet.py', '../_base_/datasets/coco_instance_lsj.py',
          '../_base_/schedules/adamw_vitdet.py', '../_base_/runtime_det.py']
published = 'No AP published'
model = dict(
    num_classes={{_base_.num_classes}},
    backbone=dict(variant='internvit_6b_224px', patch_size=16, image_size=1024, window_size=16, global_blocks='stages',
                  drop_path_rate=0.4, checkpointing='full'))
