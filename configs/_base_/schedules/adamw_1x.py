# The 1x schedule of detection in iterations: 12 epochs of 7,330 (117,266 images by 16), steps after epochs 8 and 11.
optim_wrapper = dict(
    type='OptimWrapper', constructor='LayerDecayConstructor', paramwise_cfg=dict(layer_decay_rate=1.0),
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05))
param_scheduler = [dict(type='WarmupStepLR', milestones=[58640, 80630], warmup_iters=500, warmup_ratio=1e-3)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=87960, val_interval=7330)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
