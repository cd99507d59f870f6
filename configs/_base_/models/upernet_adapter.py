# InternViT in a ViT-Adapter; UperNet reads its four maps as they are, the auxiliary FCN head the third.
_base_ = ['upernet.py']
model = dict(
    backbone=dict(_delete_=True, type='InternViTAdapter'), neck=None, auxiliary_head=dict(in_index=2))
