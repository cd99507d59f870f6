"""The table of variants; a new row is tested without a change here."""

from __future__ import annotations

import pytest
import torch

from internvl_dense.backbones.create import create_backbone, list_backbones
from internvl_dense.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
from internvl_dense.backbones.variants import VARIANTS

SIX_B = list_backbones('internvit_6b_*')
# OpenGVLab/InternVL-MMDetSeg: the linear segmentor at 504 px has 5,906,608,150 parameters, its head 486,550.
PARAMETERS_6B = 5_906_608_150 - 486_550
PARAMETERS_PER_BLOCK = 122_918_400  # qkv, proj, fc1, fc2, four norms and two layer scales of 3200 channels
BLOCK = 'blocks.0.'


def count(name: str, **kwargs: int) -> int:
    return sum(p.numel() for p in create_backbone(name, device='meta', **kwargs).parameters())


@pytest.mark.parametrize('name', list_backbones())
def test_every_variant_builds_without_memory_and_names_its_maps(name: str) -> None:
    model = create_backbone(name, device='meta')
    spec = model.spec
    assert spec.name == name
    assert {p.device.type for p in model.parameters()} == {'meta'}
    assert model.feature_info.indices == spec.stage_indices
    assert model.feature_info.channels == (spec.embed_dim,) * 4
    assert model.feature_info.strides == (spec.patch_size,) * 4
    maps = model(torch.zeros(1, 3, 2 * spec.patch_size, 3 * spec.patch_size, device='meta'))
    assert [tuple(one.shape) for one in maps] == [(1, spec.embed_dim, 2, 3)] * 4


@pytest.mark.parametrize('name', list_backbones())
def test_every_variant_states_where_its_weights_come_from(name: str) -> None:
    spec = VARIANTS.get(name)
    assert (spec.pixel_mean, spec.pixel_std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert spec.image_size % spec.patch_size == 0
    if spec.weights is not None:
        assert spec.weights.licence and spec.weights.source and spec.weights.size_gb > 0
        assert spec.weights.hf_repo.startswith('OpenGVLab/InternViT-')


def test_the_published_variants_are_there() -> None:
    assert {'internvit_6b_224px', 'internvit_6b_448px_v1_0', 'internvit_6b_448px_v1_2', 'internvit_6b_448px_v1_5',
            'internvit_6b_448px_v2_5', 'internvit_300m_448px', 'internvit_debug'} <= set(list_backbones())


@pytest.mark.parametrize('name', SIX_B)
def test_size_of_the_6b_kind(name: str) -> None:
    missing = 48 - VARIANTS.get(name).depth
    assert count(name, image_size=504) == PARAMETERS_6B - missing * PARAMETERS_PER_BLOCK
    if not missing:
        assert round(count(name, image_size=504) / 1e6, 1) == 5906.1


def test_size_of_the_300m_kind() -> None:
    # Model card: 304 M parameters.
    assert round(count('internvit_300m_448px') / 1e6) == 304


@pytest.mark.parametrize('name', SIX_B)
def test_linear_probing_reads_the_same_block_of_every_6b_variant(name: str) -> None:
    model = create_backbone(name, device='meta', out_indices='probe')
    assert model.out_indices == (44,)


@pytest.mark.parametrize('name', SIX_B)
def test_switches_of_the_6b_kind(name: str) -> None:
    state = create_backbone(name, device='meta').state_dict()
    names = {key.removeprefix(BLOCK) for key in state if key.startswith(BLOCK)}
    assert names == {
        'norm1.weight', 'norm2.weight', 'ls1.gamma', 'ls2.gamma', 'attn.qkv.weight', 'attn.q_norm.weight',
        'attn.k_norm.weight', 'attn.proj.weight', 'attn.proj.bias', 'mlp.fc1.weight', 'mlp.fc1.bias',
        'mlp.fc2.weight', 'mlp.fc2.bias',
    }
    assert not [key for key in state if key.startswith('norm.')]
    assert VARIANTS.get(name).head_dim == 128


def test_switches_of_the_300m_kind() -> None:
    state = create_backbone('internvit_300m_448px', device='meta').state_dict()
    assert {f'{BLOCK}norm1.bias', f'{BLOCK}attn.qkv.bias'} <= state.keys()
    assert f'{BLOCK}attn.q_norm.weight' not in state
    assert VARIANTS.get('internvit_300m_448px').head_dim == 64


def test_only_the_first_448_px_file_has_blocks_to_drop() -> None:
    dropped = {name: VARIANTS.get(name).dropped_blocks for name in list_backbones()}
    assert dropped.pop('internvit_6b_448px_v1_0') == (45, 46, 47)
    assert set(dropped.values()) == {()}


def test_stages_of_the_6b_kind() -> None:
    stages = {VARIANTS.get(name).depth: VARIANTS.get(name).stage_indices for name in SIX_B}
    assert stages == {48: (11, 23, 35, 47), 45: (11, 22, 33, 44)}


def test_the_debug_variant_has_every_switch_of_the_6b_kind() -> None:
    debug, big = VARIANTS.get('internvit_debug'), VARIANTS.get('internvit_6b_224px')
    for switch in ('mlp', 'mlp_ratio', 'qkv_bias', 'qk_norm', 'norm', 'norm_eps', 'layer_scale_init', 'cls_token',
                   'num_register_tokens', 'final_norm', 'patch_size'):
        assert getattr(debug, switch) == getattr(big, switch), switch
    assert count('internvit_debug') < 1_000_000


@pytest.mark.parametrize('name', list_backbones())
def test_every_variant_takes_windows_and_keeps_its_parameters(name: str) -> None:
    plain = create_backbone(name, device='meta')
    model = create_backbone(name, device='meta', window_size=16, global_blocks='stages')
    globals_ = {index for index, window in enumerate(model.windows) if window is None}
    assert globals_ == set(model.spec.stage_indices)
    assert [block.attn.window for block in model.blocks] == list(model.windows)
    assert {key: value.shape for key, value in model.state_dict().items()} == {
        key: value.shape for key, value in plain.state_dict().items()}
    patch = model.spec.patch_size
    maps = model(torch.zeros(1, 3, 20 * patch, 33 * patch, device='meta'))
    assert [tuple(one.shape) for one in maps] == [(1, model.spec.embed_dim, 20, 33)] * 4
