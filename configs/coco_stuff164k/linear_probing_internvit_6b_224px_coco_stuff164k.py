# Linear probing of InternViT-6B-224px on COCO-Stuff 164k: mIoU published, not transcribed.
# 8 GPUs x 2 images x 80k iterations = 10.8 epochs of 118,287 images; 0.55 M of 5,907 M parameters train.
# tools/dist_train.sh configs/coco_stuff164k/linear_probing_internvit_6b_224px_coco_stuff164k.py 8
_base_ = ['../_base_/recipes/linear_probing.py', '../_base_/datasets/coco_stuff164k_504.py']
published = 'arXiv 2412.05271, Table 15, not transcribed'
model = dict(
    decode_head=dict(num_classes={{_base_.num_classes}}),
    data_preprocessor=dict(size={{_base_.crop_size}}),
    test_cfg=dict(crop_size={{_base_.crop_size}}, stride={{_base_.slide_stride}}))
