"""Each layer against its definition, spelled out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from internvl_dense.backbones.layers import (
    Attention,
    Block,
    DropPath,
    LayerScale,
    Mlp,
    PatchEmbed,
    RMSNorm,
    init_layer,
    make_norm,
)
from internvl_dense.backbones.spec import BackboneSpec

SPEC = BackboneSpec(name='tiny', embed_dim=12, depth=1, num_heads=3, image_size=28)
ATOL = 1e-6  # fp32, other order of additions
BF16_ULP = 2**-7


def rms(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize('scale', [1.0, 1e-3])  # small values show the epsilon
def test_rms_norm(scale: float) -> None:
    norm = randomised(RMSNorm(12, 1e-6))
    x = torch.randn(2, 5, 12) * scale
    torch.testing.assert_close(norm(x), rms(x, norm.weight), atol=ATOL, rtol=0)


def test_rms_norm_keeps_bf16_and_squares_in_fp32() -> None:
    norm = randomised(RMSNorm(512, 1e-6)).bfloat16()
    x = torch.randn(4, 512).bfloat16() * 300
    out = norm(x)
    assert out.dtype == torch.bfloat16
    exact = rms(x.double(), norm.weight.double())
    assert ((out.double() - exact).abs() <= BF16_ULP * exact.abs() + 1e-9).all()
    assert RMSNorm(512, 1e-6)(x).dtype == torch.bfloat16  # also with fp32 weights


def test_norm_of_the_variant() -> None:
    assert isinstance(make_norm(SPEC), RMSNorm)
    layer = make_norm(SPEC.replace(norm='layer', norm_eps=1e-3))
    assert isinstance(layer, nn.LayerNorm)
    assert layer.eps == 1e-3
    assert layer.bias is not None


def test_patches_are_row_major_products_with_the_kernel() -> None:
    embed = randomised(PatchEmbed(4, 6))
    image = torch.randn(2, 3, 8, 12)
    maps = embed(image)
    assert maps.shape == (2, 6, 2, 3)
    patch = image[1, :, 4:8, 8:12].reshape(-1)
    expected = embed.proj.weight.flatten(1) @ patch + embed.proj.bias
    torch.testing.assert_close(maps[1, :, 1, 2], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(('size', 'grid'), [((8, 12), (2, 3)), ((9, 12), (3, 3)), ((5, 3), (2, 1)), ((1, 13), (1, 4))])
def test_a_remainder_is_padded_with_zeros_at_the_bottom_and_right(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    embed = randomised(PatchEmbed(4, 6))
    image = torch.randn(1, 3, *size)
    padded = torch.zeros(1, 3, grid[0] * 4, grid[1] * 4)
    padded[..., :size[0], :size[1]] = image
    assert embed(image).shape[2:] == grid
    assert torch.equal(embed(image), embed(padded))


@pytest.mark.parametrize('qk_norm', [True, False])
@pytest.mark.parametrize('bias', [True, False])
def test_attention_head_by_head(qk_norm: bool, bias: bool) -> None:
    attention = randomised(Attention(SPEC.replace(qk_norm=qk_norm, qkv_bias=bias), 'eager'))
    x = torch.randn(2, 5, 12)
    q, k, v = F.linear(x, attention.qkv.weight, attention.qkv.bias).split(12, dim=-1)
    if qk_norm:  # over all heads together, before they are parted
        q, k = rms(q, attention.q_norm.weight), rms(k, attention.k_norm.weight)
    heads = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        weights = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(4)).softmax(-1)
        heads.append(weights @ v[..., part])
    expected = F.linear(torch.cat(heads, -1), attention.proj.weight, attention.proj.bias)
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)
    assert (attention.qkv.bias is not None) == bias


def test_mlp_has_the_exact_gelu() -> None:
    mlp = randomised(Mlp(SPEC))
    x = torch.randn(2, 12)
    hidden = F.linear(x, mlp.fc1.weight, mlp.fc1.bias)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    assert hidden.shape == (2, 48)
    torch.testing.assert_close(mlp(x), F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias), atol=1e-4, rtol=1e-5)


def test_swiglu_gates_with_the_first_half() -> None:
    mlp = randomised(Mlp(SPEC.replace(mlp='swiglu')))
    assert mlp.fc1.weight.shape == (96, 12)
    x = torch.randn(2, 12)
    hidden = F.linear(x, mlp.fc1.weight, mlp.fc1.bias)
    hidden = hidden[:, :48] * torch.sigmoid(hidden[:, :48]) * hidden[:, 48:]
    torch.testing.assert_close(mlp(x), F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias), atol=1e-4, rtol=1e-5)


def test_layer_scale_multiplies_channels() -> None:
    scale = LayerScale(3, 0.1)
    assert scale.gamma.tolist() == pytest.approx([0.1] * 3)
    with torch.no_grad():
        scale.gamma.copy_(torch.tensor([1.0, 2.0, -1.0]))
    assert torch.equal(scale(torch.ones(1, 2, 3)), torch.tensor([[[1.0, 2.0, -1.0]] * 2]))
    assert scale(torch.ones(1, 2, 3).bfloat16()).dtype == torch.bfloat16


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    drop = DropPath(0.3).train()
    torch.manual_seed(0)
    out = drop(torch.ones(20_000, 2, 3))
    assert ((out == out[:, :1, :1]).all(2).all(1)).all()  # a sample is one decision
    values, counts = out[:, 0, 0].unique(return_counts=True)
    assert values.tolist() == pytest.approx([0.0, 1 / 0.7])
    # 5 standard deviations of a binomial share.
    assert counts[0] / len(out) == pytest.approx(0.3, abs=5 * math.sqrt(0.3 * 0.7 / len(out)))


def test_drop_path_follows_the_seed_and_rests_in_eval_mode_or_at_rate_0() -> None:
    drop, x = DropPath(0.5).train(), torch.randn(64, 2, 3)
    torch.manual_seed(1)
    first = drop(x)
    torch.manual_seed(1)
    assert torch.equal(drop(x), first)
    assert not torch.equal(drop(x), first)
    assert drop.eval()(x) is x
    assert DropPath(0.0).train()(x) is x


def test_block_is_pre_norm_with_scaled_branches() -> None:
    block = randomised(Block(SPEC, 'eager', 0.0)).eval()
    x = torch.randn(2, 5, 12)
    after = x + block.ls1.gamma * block.attn(rms(x, block.norm1.weight))
    expected = after + block.ls2.gamma * block.mlp(rms(after, block.norm2.weight))
    torch.testing.assert_close(block(x), expected, atol=1e-4, rtol=1e-4)


def test_initial_values() -> None:
    block = randomised(Block(SPEC.replace(norm='layer', qkv_bias=True, layer_scale_init=0.25), 'eager', 0.0))
    embed = randomised(PatchEmbed(14, 12))
    for module in (*block.modules(), *embed.modules()):
        init_layer(module)
    for name, parameter in block.named_parameters():
        if name.endswith('bias'):
            assert not parameter.any(), name
        elif name.endswith('gamma'):
            assert (parameter == 0.25).all(), name
        elif 'norm' in name:
            assert (parameter == 1).all(), name
        else:
            assert 0.01 < float(parameter.detach().std()) < 0.03, name
    bound = math.sqrt(6 / (3 * 14 * 14 + 12))
    assert 0.9 * bound < float(embed.proj.weight.detach().abs().max()) <= bound
    assert not embed.proj.bias.any()


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('qk_norm', [True, False])
@pytest.mark.parametrize('padding', ['masked', 'zeros'])
def test_windows_of_attention_are_attention_over_their_cells(padding: str, qk_norm: bool, bias: bool) -> None:
    spec = SPEC.replace(qk_norm=qk_norm, qkv_bias=bias)
    whole = randomised(Attention(spec, 'eager'))
    windowed = Attention(spec, 'eager', 3, padding)
    windowed.load_state_dict(whole.state_dict())
    x = torch.randn(2, 5 * 4, 12)
    out = windowed(x, (5, 4)).unflatten(1, (5, 4))
    cells = x.unflatten(1, (5, 4))
    if padding == 'zeros':
        cells = F.pad(cells, (0, 0, 0, 2, 0, 1))
    for rows in (slice(0, 3), slice(3, 6)):
        for columns in (slice(0, 3), slice(3, 6)):
            window = cells[:, rows, columns]
            expected = whole(window.flatten(1, 2)).unflatten(1, window.shape[1:3])
            ours = out[:, rows, columns]
            expected = expected[:, :ours.shape[1], :ours.shape[2]]
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_padding_with_zeros_trains_the_bias_that_padded_cells_show() -> None:
    attention = randomised(Attention(SPEC.replace(qkv_bias=True), 'eager', 3, 'zeros')).double()
    padded = randomised(Attention(SPEC.replace(qkv_bias=True), 'eager')).double()
    x = torch.randn(1, 4, 12, dtype=torch.float64)
    attention(x, (2, 2)).square().sum().backward()
    cells = F.pad(x.unflatten(1, (2, 2)), (0, 0, 0, 1, 0, 1))
    padded(cells.flatten(1, 2)).unflatten(1, (3, 3))[:, :2, :2].square().sum().backward()
    for (name, ours), expected in zip(attention.named_parameters(), padded.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, atol=1e-9, rtol=1e-9, msg=name)


def test_windows_without_a_grid_are_an_error_of_the_caller() -> None:
    with pytest.raises(AssertionError, match='needs the grid of its tokens'):
        Block(SPEC, 'eager', 0.0, window=2)(torch.randn(1, 4, 12))
