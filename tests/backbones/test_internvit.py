"""The backbone: any input size, what it returns, what it computes and what it trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from internvl_dense.backbones.internvit import InternViT, drop_path_rates, resolve_indices
from internvl_dense.backbones.position import resize_position
from internvl_dense.backbones.spec import BackboneSpec
from internvl_dense.errors import UserError

SPEC = BackboneSpec(name='tiny', embed_dim=16, depth=6, num_heads=2, image_size=28, patch_size=7, probe_index=4)


def build(spec: BackboneSpec = SPEC, seed: int = 0, **kwargs: Any) -> InternViT:
    """A small backbone whose layer scales are large enough for every block to matter."""
    torch.manual_seed(seed)
    model = InternViT(spec, **{'attention': 'eager', **kwargs})
    model.reset_parameters()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith('gamma'):
                parameter.uniform_(0.5, 1.5)
            elif name in ('pos_embed', 'cls_token', 'register_tokens'):
                parameter.normal_()
    return model


def count_calls(model: InternViT) -> Counter[int]:
    """Counts how often each block is entered; recomputation leaves it early, so its end would not count."""
    calls: Counter[int] = Counter()
    for index, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda *_, index=index: calls.update([index]))
    return calls


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50))
def test_any_size_gives_a_map_of_whole_patches(height: int, width: int) -> None:
    model = build().eval()
    maps = model(torch.randn(1, 3, height, width))
    assert [tuple(one.shape) for one in maps] == [(1, 16, -(-height // 7), -(-width // 7))] * 4


def test_a_remainder_is_seen_as_zeros_at_the_bottom_and_right() -> None:
    model = build().eval()
    image = torch.randn(2, 3, 30, 20)
    padded = torch.zeros(2, 3, 35, 21)
    padded[..., :30, :20] = image
    for ours, expected in zip(model(image), model(padded), strict=True):
        assert torch.equal(ours, expected)


def test_positions_are_resampled_to_the_grid_of_the_image() -> None:
    model = build().eval()
    fixed = build(SPEC.replace(image_size=42)).eval()
    state = model.state_dict()
    fixed.load_state_dict({**state, 'pos_embed': resize_position(state['pos_embed'], 1, (6, 6))})
    image = torch.randn(1, 3, 42, 42)
    for ours, expected in zip(model(image), fixed(image), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    tall, wide = model(torch.randn(1, 3, 42, 14))[-1], model(torch.randn(1, 3, 14, 42))[-1]
    assert (tall.shape[2:], wide.shape[2:]) == ((6, 2), (2, 6))


def test_cells_lie_where_their_patches_lie() -> None:
    model = build(out_indices=[0]).eval()
    for branch in (model.blocks[0].ls1, model.blocks[0].ls2):
        nn.init.zeros_(branch.gamma)  # the block passes tokens through
    nn.init.zeros_(model.pos_embed)
    image = torch.zeros(1, 3, 14, 21)
    image[..., 7:14, 14:21] = 1
    [one] = model(image)
    background = one[0, :, 0, 0]
    changed = (one[0] - background[:, None, None]).abs().sum(0) > 1e-6
    assert changed.nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ('out_indices', 'expected'),
    [('stages', (1, 2, 3, 5)), ('last', (5,)), ('probe', (4,)), ([0, 3], (0, 3)), ((-2, -1), (4, 5)),
     (range(6), (0, 1, 2, 3, 4, 5))],
)
def test_ways_to_choose_outputs(out_indices: str | Sequence[int], expected: tuple[int, ...]) -> None:
    model = build(out_indices=out_indices).eval()
    assert model.out_indices == expected == model.feature_info.indices
    assert model.feature_info.channels == (16,) * len(expected)
    assert model.feature_info.strides == (7,) * len(expected)
    every = build(out_indices=range(6)).eval()
    image = torch.randn(1, 3, 28, 28)
    maps = every(image)
    assert len(model(image)) == len(expected)
    for ours, index in zip(model(image), expected, strict=True):
        assert torch.equal(ours, maps[index])


@pytest.mark.parametrize(
    ('out_indices', 'message'),
    [
        ('stage', "Unknown out_indices 'stage'. Did you mean 'stages'? Or give block numbers."),
        ([0, 6], r'out_indices [0, 6]: [6]; tiny has blocks 0..5'),
        ([-7], '[-7]'),
        ([], 'empty'),
        ([3, 1], 'out_indices [3, 1] do not increase'),
        ([1, 1], 'do not increase'),
        ([5, -1], 'do not increase'),
    ],
)
def test_wrong_outputs_are_refused(out_indices: str | Sequence[int], message: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_indices(SPEC, out_indices)
    assert message in str(error.value)


def test_a_trunk_of_two_blocks_still_has_four_stages() -> None:
    model = build(SPEC.replace(depth=2)).eval()
    assert model.out_indices == (0, 0, 0, 1)
    maps = model(torch.randn(1, 3, 14, 14))
    assert len(maps) == len(model.feature_info.channels) == 4
    assert torch.equal(maps[0], maps[2])


def test_class_token_beside_each_map() -> None:
    model = build(return_cls=True).eval()
    image = torch.randn(2, 3, 14, 21)
    tokens, grid = model.forward_tokens(image)
    assert grid == (2, 3)
    for (one, cls), x in zip(model(image), tokens, strict=True):
        assert torch.equal(cls, x[:, 0])
        assert torch.equal(one.flatten(2).transpose(1, 2), x[:, 1:])
    with pytest.raises(UserError, match='return_cls needs a variant with a class token'):
        build(SPEC.replace(cls_token=False), return_cls=True)


def test_all_wrong_options_come_at_once() -> None:
    with pytest.raises(UserError, match='5 problems') as error:
        build(drop_path_rate=1.0, checkpointing='ful', window_padding='zero', window_size=0, global_blocks=[6])
    assert "Unknown window_padding 'zero'. Did you mean 'zeros'?" in str(error.value)
    assert 'window_size 0 must be' in str(error.value)
    assert 'global_blocks [6]: tiny has blocks 0..5' in str(error.value)
    assert 'drop_path_rate 1.0 is outside [0, 1)' in str(error.value)
    assert "Did you mean 'full'?" in str(error.value)


def test_nothing_behind_the_last_output_is_computed_or_trained() -> None:
    model = build(out_indices=[1, 3])
    calls = count_calls(model)
    torch.stack(model(torch.randn(2, 3, 28, 28))).sum().backward()
    assert calls == {0: 1, 1: 1, 2: 1, 3: 1}
    trained = {name.split('.')[1] for name, p in model.named_parameters() if p.requires_grad and 'blocks' in name}
    assert trained == {'0', '1', '2', '3'}
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_frozen_means_no_gradient_and_eval_mode_for_good() -> None:
    model = build(frozen=True, drop_path_rate=0.5)
    assert not any(p.requires_grad for p in model.parameters())
    head = nn.Conv2d(16, 2, 1)
    whole = nn.ModuleDict({'trunk': model, 'head': head}).train()
    assert whole.training and head.training
    assert not any(module.training for module in model.modules())
    image = torch.randn(4, 3, 28, 28, requires_grad=True)
    maps = model(image)
    assert not any(one.requires_grad for one in maps)
    assert all(torch.equal(a, b) for a, b in zip(maps, model(image), strict=True))  # no drop path
    head(maps[-1]).sum().backward()
    assert head.weight.grad is not None
    assert all(p.grad is None for p in model.parameters())


def test_trained_trunks_follow_train_and_eval() -> None:
    model = build()
    assert model.training
    assert not model.eval().blocks[0].training
    assert model.train().blocks[0].training


def gradients(
    checkpointing: str, size: tuple[int, int] = (28, 28), **kwargs: Any
) -> tuple[dict[str, torch.Tensor], Counter[int]]:
    model = build(checkpointing=checkpointing, **kwargs).train()
    calls = count_calls(model)
    torch.manual_seed(3)
    loss = sum(one.square().mean() for one in model(torch.randn(3, 3, *size)))
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, calls


@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_checkpointing_gives_the_same_gradients_and_computes_twice(drop_path_rate: float) -> None:
    plain, once = gradients('none', drop_path_rate=drop_path_rate)
    recomputed, twice = gradients('full', drop_path_rate=drop_path_rate)
    assert plain.keys() == recomputed.keys()
    for name, grad in plain.items():
        assert torch.equal(grad, recomputed[name]), name
    assert set(once.values()) == {1}
    assert set(twice.values()) == {2}


@pytest.mark.parametrize('padding', ['masked', 'zeros'])
def test_checkpointing_of_windows_gives_the_same_gradients(padding: str) -> None:
    spec = SPEC.replace(qkv_bias=True, num_register_tokens=1)
    options: dict[str, Any] = {'spec': spec, 'size': (35, 20), 'window_size': [2, None, 3, 4, 1, 9],
                               'window_padding': padding, 'drop_path_rate': 0.3}
    plain, once = gradients('none', **options)
    recomputed, twice = gradients('full', **options)
    assert plain.keys() == recomputed.keys() == dict(build(spec).named_parameters()).keys()
    for name, grad in plain.items():
        assert torch.equal(grad, recomputed[name]), name
    assert (set(once.values()), set(twice.values())) == ({1}, {2})


def test_checkpointing_recomputes_only_where_a_gradient_flows() -> None:
    frozen = build(frozen=True, checkpointing='full').train()
    calls = count_calls(frozen)
    head = nn.Conv2d(16, 2, 1)
    head(frozen(torch.randn(1, 3, 28, 28))[-1]).sum().backward()
    assert set(calls.values()) == {1}
    model = build(checkpointing='full').eval()
    calls = count_calls(model)
    with torch.no_grad():
        model(torch.randn(1, 3, 28, 28))
    assert set(calls.values()) == {1}


def test_drop_path_grows_linearly_and_follows_the_seed() -> None:
    model = build(drop_path_rate=0.5).train()
    rates = [block.drop_path.rate for block in model.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5]) == drop_path_rates(0.5, 6)
    image = torch.randn(8, 3, 28, 28)
    torch.manual_seed(5)
    first = model(image)[-1]
    torch.manual_seed(5)
    assert torch.equal(model(image)[-1], first)
    assert not torch.equal(model(image)[-1], first)
    assert drop_path_rates(0.4, 1) == [0.0]


@pytest.mark.parametrize('cls_token', [True, False])
def test_registers_stand_behind_the_class_token_and_are_cut_off(cls_token: bool) -> None:
    spec = SPEC.replace(num_register_tokens=3, cls_token=cls_token)
    model = build(spec, out_indices=range(6)).eval()
    assert ('cls_token' in model.state_dict()) == cls_token
    image = torch.randn(1, 3, 14, 21)
    embedded, grid = model._embed(image)
    first = int(cls_token)
    assert torch.equal(embedded[0, first:first + 3], model.register_tokens[0])  # they have no position
    tokens, _ = model.forward_tokens(image)
    assert tokens[0].shape[1] == first + 3 + 6
    assert grid == (2, 3)
    assert torch.equal(model(image)[0].flatten(2).transpose(1, 2), tokens[0][:, first + 3:])
    plain = build(SPEC.replace(cls_token=cls_token), out_indices=range(6)).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != 'register_tokens'})
    assert not torch.allclose(plain(image)[-1], model(image)[-1])


def test_final_norm_is_applied_to_every_output_but_not_to_the_stream() -> None:
    spec = SPEC.replace(final_norm=True, norm='layer')
    model = build(spec).eval()
    plain = build(spec.replace(final_norm=False)).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith('norm.')})
    nn.init.constant_(model.norm.weight, 2.0)
    image = torch.randn(1, 3, 28, 28)
    for ours, raw in zip(model(image), plain(image), strict=True):
        expected = 2 * nn.functional.layer_norm(raw.permute(0, 2, 3, 1), (16,), eps=1e-6).permute(0, 3, 1, 2)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_swiglu_and_layer_norm_run_and_train() -> None:
    model = build(SPEC.replace(mlp='swiglu', norm='layer', qkv_bias=True, qk_norm=False)).train()
    model(torch.randn(1, 3, 28, 28))[-1].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_bf16_casts_the_image_and_stays_near_fp32() -> None:
    exact = build().eval()
    model = build().to(torch.bfloat16).eval()
    image = torch.randn(1, 3, 35, 21)
    for ours, expected in zip(model(image), exact(image), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - expected).abs().max() < 0.1 * expected.abs().max()


def test_windows_hide_what_lies_outside_them_and_the_class_token_sees_all() -> None:
    model = build(SPEC.replace(num_register_tokens=1), window_size=2, out_indices=[0]).eval()
    assert model.windows == (2,) * 6
    image = torch.randn(1, 3, 21, 35)  # 3 x 5 patches
    other = image.clone()
    other[..., 14:, 28:] += 1  # the patch at the bottom right, alone in its window
    before, after = (model.forward_tokens(one)[0][0][0] for one in (image, other))
    changed = (before != after).any(-1)
    assert changed[:2].all()
    assert changed[2:].nonzero().flatten().tolist() == [14]


def test_global_blocks_let_everything_be_seen() -> None:
    image = torch.randn(1, 3, 21, 35)
    other = image.clone()
    other[..., 14:, 28:] += 1
    spec = SPEC.replace(cls_token=False)
    for global_blocks, reach in (((), 1), ([1], 15), ('stages', 15)):
        model = build(spec, window_size=2, global_blocks=global_blocks, out_indices='last').eval()
        before, after = (model(one)[0] for one in (image, other))
        assert int((before != after).any(1).sum()) == reach


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 7), st.integers(0, 2), st.booleans())
def test_any_size_any_window_and_any_prefix(
    height: int, width: int, window: int, registers: int, cls_token: bool
) -> None:
    spec = SPEC.replace(depth=2, cls_token=cls_token, num_register_tokens=registers)
    model = build(spec, window_size=[window, None], out_indices='last').eval()
    image = torch.randn(1, 3, height, width)
    [one] = model(image)
    assert one.shape == (1, 16, -(-height // 7), -(-width // 7))
    assert one.isfinite().all()
    if window >= max(one.shape[2:]):
        torch.testing.assert_close(one, build(spec, out_indices='last').eval()(image)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize('padding', ['masked', 'zeros'])
def test_windows_project_the_tokens_and_nothing_else(padding: str) -> None:
    spec = SPEC.replace(patch_size=16, image_size=256, depth=1, cls_token=False)
    with torch.device('meta'):
        model = build(spec, window_size=16, window_padding=padding, out_indices='last')
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(2, 3, 800, 1333))
    counts = {name: sum(row.values()) for name, row in counter.get_flop_counts().items()}
    tokens, channels = 50 * 84, spec.embed_dim
    projected = 2 * tokens + (padding == 'zeros')  # one zero vector stands for all padding
    assert counts['InternViT.blocks.0.attn.qkv'] == 2 * projected * channels * 3 * channels
    assert counts['InternViT.blocks.0.attn.proj'] == 2 * 2 * tokens * channels * channels
    windows = [(15, 256), (3, 64), (5, 32), (1, 8)]  # number and tokens, one row for each size
    keys = [256] * 4 if padding == 'zeros' else [size for _, size in windows]
    pairs = sum(count * size * seen for (count, size), seen in zip(windows, keys, strict=True))
    products = counts['InternViT.blocks.0.attn'] - counts['InternViT.blocks.0.attn.qkv'] - \
        counts['InternViT.blocks.0.attn.proj']
    assert products == 2 * 2 * 2 * pairs * channels
