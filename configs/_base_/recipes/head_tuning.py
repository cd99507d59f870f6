# Head tuning of the 6B models at 504 px: a frozen bf16 trunk under UperNet.
_base_ = ['../models/upernet.py', '../schedules/adamw_80k.py', '../runtime.py']
model = dict(backbone=dict(variant='internvit_6b_224px', image_size=504, frozen=True, dtype='bf16'))
