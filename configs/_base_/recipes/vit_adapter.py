# ViT-Adapter around a frozen bf16 trunk of the 6B models with 16-px patches at 512 px, under UperNet.
_base_ = ['../models/upernet_adapter.py', '../schedules/adamw_80k.py', '../runtime.py']
model = dict(
    backbone=dict(
        variant='internvit_6b_224px', patch_size=16, image_size=512, frozen=True, dtype='bf16', checkpointing='full',
        cffn_ratio=0.25, deform_ratio=0.25))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.95))
