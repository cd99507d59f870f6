# AdamW with linear warm-up and poly decay over 80k iterations of 16 images; layer-wise lr decay by each recipe.
optim_wrapper = dict(
    type='OptimWrapper', constructor='LayerDecayConstructor', paramwise_cfg=dict(layer_decay_rate=1.0),
    optimizer=dict(type='AdamW', lr=4e-5, betas=(0.9, 0.999), weight_decay=0.05))
param_scheduler = [dict(type='WarmupPolyLR', max_iters=80000, warmup_iters=1500, warmup_ratio=1e-6)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=80000, val_interval=1000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
