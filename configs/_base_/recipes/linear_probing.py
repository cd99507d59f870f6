# Linear probing of the 6B models at 504 px: a frozen bf16 trunk, batch norm and a linear layer, no weight decay.
_base_ = ['../models/linear.py', '../schedules/adamw_80k.py', '../runtime.py']
model = dict(backbone=dict(variant='internvit_6b_224px', image_size=504, dtype='bf16'))
optim_wrapper = dict(optimizer=dict(weight_decay=0.0))
