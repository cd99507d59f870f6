# ViTDet's schedule (Li et al., 2022): 100 epochs of 1,833 iterations of 64 images, steps at 163,889 of 184,375 and
# 177,546 there, here at the same shares of the run; layer-wise lr decay for the 6B models as in full tuning.
optim_wrapper = dict(
    type='OptimWrapper', constructor='LayerDecayConstructor', paramwise_cfg=dict(layer_decay_rate=0.95),
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1))
param_scheduler = [dict(type='WarmupStepLR', milestones=[162934, 176511], warmup_iters=250, warmup_ratio=1e-3)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=183300, val_interval=9165)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=64)
