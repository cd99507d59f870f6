# The embedded sample data with its instances: 400 train / 60 test images of 140 px, five patterns with boxes and masks.
num_classes = 5
data_root = 'data/demo/'
metainfo = dict(
    classes=('horizontal stripes', 'vertical stripes', 'diagonal stripes', 'checks', 'dots'),
    palette=[(226, 92, 72), (64, 140, 212), (240, 186, 62), (124, 92, 190), (80, 178, 120)])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=[0.3, 0.3], direction=['horizontal', 'vertical']),
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(140, 140), keep_ratio=True),  # the scale that mmdet maps results back by
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    batch_size=4, num_workers=1, persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=metainfo, ann_file='annotations/instances_training.json',
        data_prefix=dict(img='images/training/'), pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=1, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset', data_root=data_root, metainfo=metainfo, ann_file='annotations/instances_validation.json',
        data_prefix=dict(img='images/validation/'), test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='DenseCocoMetric', ann_file=data_root + 'annotations/instances_validation.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
