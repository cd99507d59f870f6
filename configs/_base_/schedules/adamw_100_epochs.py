# AdamW over 100 epochs of whatever data there are: warm-up over the first 5 %, validation every 5 epochs.
# The iterations are filled in when the images have been counted.
epochs = dict(total=100, val_every=5, warmup=0.05)
optim_wrapper = dict(
    type='OptimWrapper', constructor='LayerDecayConstructor', paramwise_cfg=dict(layer_decay_rate=1.0),
    optimizer=dict(type='AdamW', lr=4e-5, betas=(0.9, 0.999), weight_decay=0.05))
param_scheduler = [dict(type='WarmupPolyLR', max_iters=None, warmup_iters=None, warmup_ratio=1e-6)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=None, val_interval=None)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
