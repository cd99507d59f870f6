"""The one way to a backbone: names, options, device, dtype, logs."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import pytest
import torch

import internvl_dense
from internvl_dense.backbones import create
from internvl_dense.backbones.create import create_backbone, list_backbones, resolve_spec
from internvl_dense.errors import UserError

NAME = 'internvit_debug'


def test_the_package_offers_the_same_functions() -> None:
    assert internvl_dense.create_backbone is create.create_backbone
    assert internvl_dense.list_backbones is create.list_backbones
    assert internvl_dense.list_backbones('*_debug') == [NAME]
    assert not hasattr(internvl_dense, 'InternViT')


def test_names_match_a_pattern() -> None:
    versions = ('v1_0', 'v1_2', 'v1_5', 'v2_5')
    assert list_backbones('internvit_6b_448px_*') == [f'internvit_6b_448px_{version}' for version in versions]
    assert list_backbones('resnet*') == []


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('internvit_6b_448px_v1.5', {}, "Unknown backbone 'internvit_6b_448px_v1.5'. Did you mean "
                                        "'internvit_6b_448px_v1_5'? See list_backbones()."),
        (NAME, {'embed_dims': 64}, "Unknown backbone option 'embed_dims'. Did you mean 'embed_dim'?"),
        (NAME, {'attention': 'flsh'}, "Unknown attention kernel 'flsh'. Did you mean 'flash'?"),
        (NAME, {'out_indices': 'stage'}, "Did you mean 'stages'?"),
        (NAME, {'checkpointing': 'ful'}, "Did you mean 'full'?"),
        (NAME, {'window_sizes': 4}, "Unknown backbone option 'window_sizes'."),
        (NAME, {'window_size': -4}, 'window_size -4 must be a whole number of tokens from 1'),
        (NAME, {'num_heads': 5}, 'embed_dim 128 is not a multiple of num_heads 5'),
    ],
)
def test_mistakes_come_with_the_nearest_name(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        create_backbone(name, **options)
    assert message in str(error.value)


def test_random_weights_are_drawn_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger='internvl_dense'):
        torch.manual_seed(0)
        model = create_backbone(NAME)
    assert 'internvit_debug: RANDOM weights, no file was loaded' in caplog.text
    assert all(p.isfinite().all() for p in model.parameters())
    assert model.pos_embed.std() > 0.01
    torch.manual_seed(0)
    again = create_backbone(NAME).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())


def test_device_and_dtype() -> None:
    model = create_backbone(NAME, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {p.device.type for p in model.parameters()} == {'cpu'}
    with torch.device('meta'):
        assert create_backbone(NAME).pos_embed.is_meta
    assert create_backbone(NAME, device='meta', dtype=torch.bfloat16).pos_embed.dtype == torch.bfloat16


def test_a_change_of_patch_keeps_the_grid_unless_a_size_is_given() -> None:
    grid = resolve_spec(NAME).grid_size
    spec = resolve_spec(NAME, patch_size=16)
    assert (spec.patch_size, spec.grid_size, spec.image_size) == (16, grid, 16 * grid)
    spec = resolve_spec(NAME, patch_size=16, image_size=64)
    assert (spec.grid_size, spec.image_size) == (4, 64)
    assert resolve_spec(NAME, image_size=504).grid_size == 36


def test_options_reach_the_module() -> None:
    model = create_backbone(
        NAME, out_indices=[0, 1], frozen=True, drop_path_rate=0.2, checkpointing='full', return_cls=True,
        attention='eager', depth=3, qkv_bias=True, window_size=2, global_blocks=[-1], window_padding='zeros')
    assert (model.out_indices, model.frozen, model.checkpointing, model.return_cls) == ((0, 1), True, 'full', True)
    assert model.spec.depth == model.depth == 3
    assert model.blocks[2].drop_path.rate == pytest.approx(0.2)
    assert model.blocks[0].attn.kernel.name == 'eager'
    assert model.blocks[0].attn.qkv.bias is not None
    assert (model.windows, model.blocks[0].attn.padding) == ((2, 2, None), 'zeros')


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a compiler')
def test_a_block_compiles_and_gives_the_same_values() -> None:
    torch.manual_seed(0)
    block = create_backbone(NAME, embed_dim=16, num_heads=2, attention='sdpa').blocks[0].eval()
    x = torch.randn(1, 5, 16)
    torch.testing.assert_close(torch.compile(block, fullgraph=True)(x), block(x), atol=1e-5, rtol=0)
