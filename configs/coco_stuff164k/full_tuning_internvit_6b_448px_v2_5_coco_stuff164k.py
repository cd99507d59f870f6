# Full tuning (UperNet) of InternViT-6B-448px-V2-5 on COCO-Stuff 164k: mIoU published, not transcribed.
# 8 GPUs x 2 images x 80k iterations = 10.8 epochs of 118,287 images; 6,017 M parameters train.
# tools/dist_train.sh configs/coco_stuff164k/full_tuning_internvit_6b_448px_v2_5_coco_stuff164k.py 8 --amp
_base_ = ['full_tuning_internvit_6b_224px_coco_stuff164k.py']
published = 'arXiv 2412.05271, Table 15, not transcribed'
model = dict(backbone=dict(variant='internvit_6b_448px_v2_5'))
