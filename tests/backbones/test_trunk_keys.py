"""Keys of the trunk: all of an InternViT, whatever its options, and nothing that is put beside it."""

from __future__ import annotations

import torch
from torch import nn

from internvl_dense.backbones.checkpoint import load_backbone_weights
from internvl_dense.backbones.create import create_backbone
from internvl_dense.backbones.trunk_keys import is_trunk_key, trunk_parameters


def test_every_key_of_a_backbone_belongs_to_its_trunk():
    with_all = create_backbone('internvit_debug', device='meta', final_norm=True, num_register_tokens=2, qkv_bias=True)
    assert all(is_trunk_key(key) for key in with_all.state_dict())
    assert trunk_parameters(with_all).keys() == with_all.state_dict().keys()


def test_similar_names_do_not():
    assert not any(is_trunk_key(key) for key in ('norm1.weight', 'spm.stem.0.weight', 'level_embed', 'up.bias',
                                                 'interactions.0.injector.gamma', 'up1.0.weight', ''))


def test_weights_fill_the_trunk_and_leave_the_rest(tmp_path):
    options = {'embed_dim': 8, 'num_heads': 2, 'depth': 2, 'image_size': 28}
    source, target = (create_backbone('internvit_debug', **options) for _ in range(2))
    torch.save(source.state_dict(), tmp_path / 'trunk.pth')
    target.head = nn.Linear(8, 3)
    before = target.head.weight.clone()
    report = load_backbone_weights(target, tmp_path / 'trunk.pth')
    assert set(report.loaded) == source.state_dict().keys()
    assert torch.equal(target.head.weight, before)
    assert all(torch.equal(target.state_dict()[key], value) for key, value in source.state_dict().items())
