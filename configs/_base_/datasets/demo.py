# The embedded sample data: 400 train / 60 test images of 140 px whose class is the pattern; made locally.
num_classes = 6
crop_size = (140, 140)
slide_stride = (98, 98)
data_root = 'data/demo'
metainfo = dict(
    classes=('background', 'horizontal stripes', 'vertical stripes', 'diagonal stripes', 'checks', 'dots'),
    palette=[[58, 64, 78], [226, 92, 72], [64, 140, 212], [240, 186, 62], [124, 92, 190], [80, 178, 120]])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (1.0, 1.25)],
            [dict(type='RandomFlip', prob=p, direction='horizontal') for p in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')]])]
train_dataloader = dict(
    batch_size=8, num_workers=1, persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset', data_root=data_root, metainfo=metainfo, reduce_zero_label=False, pipeline=train_pipeline,
        img_suffix='.jpg', seg_map_suffix='.png',
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training')))
val_dataloader = dict(
    batch_size=1, num_workers=1, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset', data_root=data_root, metainfo=metainfo, reduce_zero_label=False, pipeline=test_pipeline,
        img_suffix='.jpg', seg_map_suffix='.png',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation')))
test_dataloader = val_dataloader
val_evaluator = dict(type='DenseIoUMetric')
test_evaluator = val_evaluator
