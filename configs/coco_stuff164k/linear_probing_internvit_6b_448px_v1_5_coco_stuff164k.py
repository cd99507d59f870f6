# Linear probing of InternViT-6B-448px-V1-5 on COCO-Stuff 164k: mIoU published, not transcribed.
# 8 GPUs x 2 images x 80k iterations = 10.8 epochs of 118,287 images; 0.55 M of 5,538 M parameters train.
# tools/dist_train.sh configs/coco_stuff164k/linear_probing_internvit_6b_448px_v1_5_coco_stuff164k.py 8
_base_ = ['linear_probing_internvit_6b_224px_coco_stuff164k.py']
published = 'arXiv 2412.05271, Table 15, not transcribed'
model = dict(backbone=dict(variant='internvit_6b_448px_v1_5'))
