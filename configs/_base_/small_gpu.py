# UperNet for one small GPU: 256 channels, and 8 micro-batches of 2 images accumulated to the 16 of the recipes.
_base_ = ['models/upernet.py', 'schedules/adamw_100_epochs.py', 'runtime.py']
model = dict(decode_head=dict(channels=256), auxiliary_head=dict(channels=256))
optim_wrapper = dict(accumulative_counts=8)
default_hooks = dict(checkpoint=dict(interval=None))
