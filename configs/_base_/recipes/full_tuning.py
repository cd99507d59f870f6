# Full tuning of the 6B models at 504 px: UperNet, drop path, layer-wise lr decay, blocks recomputed in backward.
_base_ = ['../models/upernet.py', '../schedules/adamw_80k.py', '../runtime.py']
model = dict(
    backbone=dict(variant='internvit_6b_224px', image_size=504, drop_path_rate=0.4, checkpointing='full'))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.95))
