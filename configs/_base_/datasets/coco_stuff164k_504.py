# COCO-Stuff 164k, 171 classes, 118,287 train / 5,000 val images; crops and windows as for ADE20K.
_base_ = ['ade20k_504.py']
num_classes = 171
data_root = 'data/coco_stuff164k'
train_dataloader = dict(
    dataset=dict(
        type='COCOStuffDataset', data_root=data_root,
        data_prefix=dict(img_path='images/train2017', seg_map_path='annotations/train2017')))
val_dataloader = dict(
    dataset=dict(
        type='COCOStuffDataset', data_root=data_root,
        data_prefix=dict(img_path='images/val2017', seg_map_path='annotations/val2017')))
test_dataloader = val_dataloader
