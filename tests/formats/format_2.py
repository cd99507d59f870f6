# The model of format_2.pth.
_base_ = ['../../configs/demo/linear_probing_internvit_debug_demo.py']
model = dict(backbone=dict(depth=2, embed_dim=8, num_heads=2, image_size=70, frozen=False, weights='random'))
