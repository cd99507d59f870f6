# CamVid's instances: 367 train / 101 val street images of 480 x 360 px, four classes with boxes and masks.
# For your images, change data_root and classes; the two json files are COCO's.
num_classes = 4
data_root = 'data/camvid/'
metainfo = dict(
    classes=('sign symbol', 'car', 'pedestrian', 'bicyclist'),
    palette=[(230, 150, 140), (90, 30, 150), (230, 170, 30), (20, 150, 190)])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(420, 315), ratio_range=(0.75, 1.35), keep_ratio=True),
    dict(type='RandomCrop', crop_type='absolute', crop_size=(315, 420), recompute_bbox=True, allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2.0, 2.0), keep_empty=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(420, 315), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    batch_size=4, num_workers=1, persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=metainfo, ann_file='instances_train.json',
        data_prefix=dict(img='images/train/'), filter_cfg=dict(filter_empty_gt=True), pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=1, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=metainfo, ann_file='instances_val.json',
        data_prefix=dict(img='images/val/'), test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='DenseCocoMetric', ann_file=data_root + 'instances_val.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
