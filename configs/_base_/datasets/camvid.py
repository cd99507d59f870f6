# CamVid as "your own data": 367 train / 101 val street images of 480 x 360 px, 11 classes, 255 = ignore.
# For your images, change data_root, classes and palette; folders are images/SPLIT and annotations/SPLIT.
num_classes = 11
crop_size = (252, 336)
slide_stride = (108, 144)
data_root = 'data/camvid'
metainfo = dict(
    classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign symbol', 'fence', 'car', 'pedestrian',
             'bicyclist'),
    palette=[[128, 190, 230], [150, 70, 60], [200, 190, 120], [110, 80, 120], [70, 90, 190], [100, 140, 40],
             [230, 150, 140], [80, 90, 120], [90, 30, 150], [230, 170, 30], [20, 150, 190]])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(480, 360), ratio_range=(0.375, 1.125), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(336, 252), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=scale, keep_ratio=True) for scale in ((336, 252), (448, 336))],
            [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')]])]
train_dataloader = dict(
    batch_size=8, num_workers=1, persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset', data_root=data_root, metainfo=metainfo, reduce_zero_label=False, pipeline=train_pipeline,
        img_suffix='.jpg', seg_map_suffix='.png',
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train')))
val_dataloader = dict(
    batch_size=1, num_workers=1, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset', data_root=data_root, metainfo=metainfo, reduce_zero_label=False, pipeline=test_pipeline,
        img_suffix='.jpg', seg_map_suffix='.png',
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val')))
test_dataloader = val_dataloader
val_evaluator = dict(type='DenseIoUMetric')
test_evaluator = val_evaluator
