# AdamW from scratch for minutes on a CPU: warm-up, poly decay, clipping.
optim_wrapper = dict(
    type='OptimWrapper', constructor='LayerDecayConstructor', paramwise_cfg=dict(layer_decay_rate=1.0),
    optimizer=dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.05), clip_grad=dict(max_norm=1.0))
param_scheduler = [dict(type='WarmupPolyLR', max_iters=500, warmup_iters=40, warmup_ratio=1e-3)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=500, val_interval=250)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
