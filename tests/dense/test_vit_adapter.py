"""ViT-Adapter: any size and patch, what trains, what is made, what is computed again, what it takes from a backbone."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from torch import nn

from internvl_dense.backbones.create import create_backbone, fill_weights
from internvl_dense.backbones.internvit import InternViT
from internvl_dense.backbones.trunk_keys import is_trunk_key, trunk_parameters
from internvl_dense.dense import InternViTAdapter
from internvl_dense.dense.spatial_prior import STRIDES
from internvl_dense.errors import UserError

TINY = {'embed_dim': 16, 'num_heads': 2, 'depth': 4, 'image_size': 56}
SMALL = {'conv_inplane': 4, 'n_points': 2, 'deform_ratio': 0.5}
IMAGE = (1, 3, 70, 61)


def trunk(**options: Any) -> InternViT:
    return create_backbone('internvit_debug', **{**TINY, **options})


def adapter(trunk_options: dict[str, Any] | None = None, **options: Any) -> InternViTAdapter:
    torch.manual_seed(0)
    return InternViTAdapter(trunk(**(trunk_options or {})), **{**SMALL, **options})


def awake(model: InternViTAdapter) -> InternViTAdapter:
    """Values at which every part has an influence: at first injectors add nothing and offsets see no query."""
    for name, parameter in model.named_parameters():
        if name.endswith(('gamma', 'sampling_offsets.weight', 'attention_weights.weight')) and not is_trunk_key(name):
            nn.init.normal_(parameter, std=0.3)
    return model


def own(model: InternViTAdapter) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if not is_trunk_key(name)}


def loss(maps: list[torch.Tensor]) -> torch.Tensor:
    """Not a sum of squares: behind a norm that is a constant."""
    generator = torch.Generator().manual_seed(1)
    return sum((one * torch.randn(one.shape, generator=generator)).mean() for one in maps)


@pytest.mark.parametrize('patch', [14, 16])
def test_any_size_forward_and_backward(patch):
    draw = random.Random(patch)
    model = awake(adapter({'patch_size': patch, 'image_size': 4 * patch}))
    for _ in range(20):
        height, width = draw.randint(64, 400), draw.randint(64, 400)
        model.zero_grad()
        maps = model(torch.randn(1, 3, height, width))
        assert [tuple(one.shape) for one in maps] == [
            (1, 16, -(-height // stride), -(-width // stride)) for stride in STRIDES]
        assert all(one.isfinite().all() for one in maps)
        loss(maps).backward()
        dead = [name for name, parameter in model.named_parameters()
                if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()]
        # Keys get the same bias for every query, which softmax does not see.
        assert not [name for name in dead if not name.endswith('qkv.bias')], (height, width)


def test_feature_info():
    info = adapter(out_indices=(1, 3)).feature_info
    assert (info.indices, info.channels, info.strides) == ((0, 1, 2, 3), (16, 16), (8, 32))


@pytest.mark.parametrize(('variant', 'runs'), [
    ('internvit_6b_224px', ((0, 11), (12, 23), (24, 35), (36, 47))),
    ('internvit_6b_448px_v1_2', ((0, 11), (12, 22), (23, 33), (34, 44))),
    ('internvit_300m_448px', ((0, 5), (6, 11), (12, 17), (18, 23)))])
def test_default_runs_end_with_the_stages(variant, runs):
    model = InternViTAdapter(create_backbone(variant, device='meta'))
    assert model.options.runs == runs
    assert model.feature_info.indices == tuple(last for _, last in runs) == model.spec.stage_indices


def test_parameter_counts_of_the_6b_model():
    model = InternViTAdapter(create_backbone('internvit_6b_224px', patch_size=16, frozen=True, device='meta'))

    def millions(part: Any) -> float:
        return round(sum(p.numel() for p in part.parameters()) / 1e6, 1)

    assert round(sum(p.numel() for p in own(model).values()) / 1e6, 1) == 143.8
    first = model.interactions[0]
    assert [millions(part) for part in (first.injector, first.extractor, model.spm, model.up)] == [8.0, 11.2, 3.3, 41.0]


def test_the_backbone_is_taken_over():
    backbone = trunk(frozen=True, checkpointing='full')
    values = {name: (value, value.clone()) for name, value in backbone.state_dict(keep_vars=True).items()}
    model = InternViTAdapter(backbone, **SMALL)
    assert (model.frozen, model.checkpointing, model.spec) == (True, 'full', backbone.spec)
    held = dict(model.named_parameters())
    for name, (parameter, value) in values.items():
        assert held[name] is parameter and torch.equal(parameter, value)
    assert not list(backbone.parameters())
    with pytest.raises(AttributeError):
        backbone(torch.zeros(IMAGE))


def test_options_that_do_not_fit_leave_the_backbone_as_it_is():
    backbone = trunk()
    with pytest.raises(UserError) as error:
        InternViTAdapter(backbone, out_indices=(0, 4), mode='extrct', vit_features='first', n_points=0,
                         deform_ratio=0.1, drop_path_rate=1.5, interaction_indexes=[[0, 1], [3, 3]])
    message = str(error.value)
    assert 'adapter of internvit_debug: 7 problems' in message
    for part in ('out_indices [0, 4]', "Did you mean 'extract'?", "Unknown vit_features 'first'", 'n_points 0',
                 'deform_ratio 0.1 of 16 channels is 1, no multiple of deform_num_heads 2', 'drop_path_rate 1.5',
                 'as in [[0, 0], [1, 1], [2, 2], [3, 3]]'):
        assert part in message
    backbone(torch.zeros(IMAGE))


@pytest.mark.parametrize(('trunk_options', 'options', 'message'), [
    ({}, {'mode': 'extract'}, 'say frozen=True'),
    ({}, {'vit_features': 'stages', 'interaction_indexes': [[0, 3]]}, 'needs 4 interactions'),
    ({'cls_token': False}, {'published': True}, 'needs a variant with a class token'),
    ({'return_cls': True}, {}, 'the adapter gives maps alone'),
    ({}, {'interaction_indexes': [[0, 1], [2, 4]]}, 'the last block of internvit_debug is 3'),
    ({}, {'interaction_indexes': []}, 'interaction_indexes []'),
    ({}, {'interaction_indexes': [[0, 1], [2]]}, 'interaction_indexes'),
    ({}, {'interaction_indexes': [[1, 3]]}, 'begins with block 0'),
    ({}, {'deform_attention': 'cuda'}, 'Unknown deformable attention kernel'),
])
def test_what_does_not_go_together(trunk_options, options, message):
    with pytest.raises(UserError) as error:
        adapter(trunk_options, **options)
    assert message in str(error.value)


def test_blocks_behind_the_last_run_are_neither_computed_nor_trained():
    model = awake(adapter(interaction_indexes=[[0, 0], [1, 2]]))
    loss(model(torch.randn(IMAGE))).backward()
    assert not any(p.requires_grad for p in model.blocks[3].parameters())
    assert all(p.grad is not None for p in model.blocks[2].parameters())


@pytest.mark.parametrize('mode', ['interact', 'extract'])
@pytest.mark.parametrize('levels', [c for n in range(1, 5) for c in itertools.combinations(range(4), n)])
def test_no_output_leaves_a_parameter_without_use(levels, mode):
    model = awake(adapter({'frozen': True}, out_indices=levels, mode=mode))
    maps = model(torch.randn(IMAGE))
    assert [one.shape[2] for one in maps] == [-(-IMAGE[2] // STRIDES[level]) for level in levels]
    loss(maps).backward()
    assert [name for name, p in own(model).items() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad is None for p in trunk_parameters(model).values())


def test_outputs_do_not_depend_on_which_others_are_wanted():
    whole, image = awake(adapter()).eval(), torch.randn(IMAGE)
    part = adapter(out_indices=(0, 2)).eval()
    part.load_state_dict({key: value for key, value in whole.state_dict().items() if key in part.state_dict()})
    for ours, expected in zip(part(image), [whole(image)[0], whole(image)[2]], strict=True):
        torch.testing.assert_close(ours, expected)


def test_a_frozen_trunk_lets_gradients_pass_to_the_first_injector():
    model = awake(adapter({'frozen': True, 'drop_path_rate': 0.5}))
    model.train()
    assert not any(block.training for block in model.blocks) and model.interactions.training
    loss(model(torch.randn(IMAGE))).backward()
    assert all(not p.requires_grad for p in trunk_parameters(model).values())
    assert model.interactions[0].injector.gamma.grad.any()


def test_extract_runs_the_trunk_as_it_was_trained():
    model = adapter({'frozen': True}, mode='extract', vit_features='none')
    assert not [name for name in model.state_dict() if 'injector' in name]
    plain, seen, image = trunk(frozen=True, out_indices='last'), [], torch.randn(IMAGE, requires_grad=True)
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if is_trunk_key(key)})
    model.blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    model.train()(image)
    assert not seen[0].requires_grad
    torch.testing.assert_close(seen[0], plain.forward_tokens(image)[0][0])


def test_a_fresh_adapter_leaves_the_tokens_of_the_trunk_alone():
    """gamma is 0 at first, so blocks, class token included, compute what they were pre-trained to."""
    model, seen, image = adapter(), [], torch.randn(IMAGE)
    plain = trunk(out_indices='last')
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if is_trunk_key(key)})
    model.blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(image)
    torch.testing.assert_close(seen[0], plain.forward_tokens(image)[0][0])


@pytest.mark.parametrize('options', [{}, {'cls_token': False}, {'num_register_tokens': 3}, {'final_norm': True},
                                     {'window_size': 2}])
def test_prefix_tokens_norms_and_windows(options):
    model = awake(adapter(options)).eval()
    image = torch.randn(IMAGE)
    seen: list[int] = []
    model.blocks[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[1]))
    maps = model(image)
    assert all(one.isfinite().all() for one in maps)
    assert seen == [25 + model.spec.num_prefix_tokens]
    if 'window_size' in options:  # the grid reaches the windows
        global_maps = awake(adapter()).eval()(image)
        assert not torch.allclose(maps[0], global_maps[0])


def test_vit_features():
    """Each choice adds other tokens; by stages, a map gets those of its own run."""
    image, found = torch.randn(IMAGE), {}
    for choice in ('last', 'stages', 'none'):
        model = awake(adapter(vit_features=choice, use_final_norm=False)).eval()
        found[choice] = model(image)
    torch.testing.assert_close(found['stages'][3], found['last'][3])
    for level in range(3):
        assert not torch.allclose(found['stages'][level], found['last'][level], atol=1e-3)
        assert not torch.allclose(found['none'][level], found['last'][level], atol=1e-3)


def count_calls(model: InternViTAdapter) -> dict[str, int]:
    """Calls of blocks, injectors and extractors from here on; a recomputation stops early, so begins are counted."""
    calls = dict.fromkeys(('Block', 'Injector', 'Extractor'), 0)

    def count(module: nn.Module, inputs: Any) -> None:
        calls[type(module).__name__] += 1

    for module in model.modules():
        if type(module).__name__ in calls:
            module.register_forward_pre_hook(count)
    return calls


@pytest.mark.parametrize('frozen', [False, True])
def test_recomputing_changes_no_gradient(frozen):
    grads, image = [], torch.randn(IMAGE)
    for checkpointing, times in (('none', 1), ('full', 2)):
        model = awake(adapter({'frozen': frozen, 'checkpointing': checkpointing})).train()
        calls = count_calls(model)
        loss(model(image)).backward()
        assert calls == {'Block': 4 * times, 'Injector': 4 * times, 'Extractor': 6 * times}
        grads.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad)


def test_nothing_is_recomputed_where_no_gradient_passes():
    model = adapter({'frozen': True, 'checkpointing': 'full'}, mode='extract')
    calls = count_calls(model)
    loss(model(torch.randn(IMAGE))).backward()
    assert calls == {'Block': 4, 'Injector': 0, 'Extractor': 12}
    model = adapter({'checkpointing': 'full'})
    calls = count_calls(model)
    with torch.no_grad():
        model(torch.randn(IMAGE))
    assert calls == {'Block': 4, 'Injector': 4, 'Extractor': 6}


@pytest.mark.parametrize(('trunk_dtype', 'own_dtype', 'atol'), [
    (torch.bfloat16, torch.float32, 0.2), (torch.bfloat16, torch.bfloat16, 0.4), (torch.float64, torch.float64, 1e-4)])
def test_precision(trunk_dtype, own_dtype, atol):
    """A bf16 trunk beside an fp32 adapter, all in bf16, and fp64."""
    image, exact = torch.randn(IMAGE), awake(adapter()).eval()
    model = adapter({'dtype': trunk_dtype}).eval()
    model.load_state_dict(exact.state_dict())
    if own_dtype != torch.float32:
        model = model.to(own_dtype)
    for ours, wanted in zip(model(image), exact(image), strict=True):
        assert ours.dtype == own_dtype
        torch.testing.assert_close(ours.float(), wanted, atol=atol, rtol=0)


def test_under_autocast():
    model, image = awake(adapter({'dtype': torch.bfloat16, 'frozen': True})), torch.randn(IMAGE)
    expected = model.eval()(image)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        maps = model(image)
        loss(maps).backward()
    for ours, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours.float(), wanted, atol=0.3, rtol=0)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in own(model).values())


def test_fresh_values():
    model = adapter(init_values=0.25)
    assert model.interactions[0].injector.gamma.eq(0.25).all()
    assert model.level_embed.std().item() == pytest.approx(1, rel=0.3)
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.reset_adapter()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed and not any(is_trunk_key(name) for name in changed)
    model.reset_parameters()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {'pos_embed', 'cls_token', 'blocks.0.attn.qkv.weight', 'patch_embed.proj.weight'} <= changed


def test_trunk_weights_fill_the_trunk_of_an_adapter(tmp_path):
    torch.save(trunk().state_dict(), tmp_path / 'trunk.pth')
    for options in ({}, {'published': True}):  # without its class token it takes the same file
        model = adapter(**options)
        before = {name: p.clone() for name, p in own(model).items()}
        fill_weights(model, tmp_path / 'trunk.pth')
        saved = torch.load(tmp_path / 'trunk.pth', weights_only=True)
        assert all(torch.equal(p, saved[name]) for name, p in trunk_parameters(model).items())
        assert all(torch.equal(p, before[name]) for name, p in own(model).items())
        assert ('cls_token' in model.state_dict()) == (not options)


def test_published_positions_are_not_resampled_where_the_count_is_right():
    model = adapter({'patch_size': 14, 'image_size': 56}, published=True)
    nn.init.normal_(model.pos_embed)
    long, _ = model._embed(torch.zeros(1, 3, 28, 112))
    square, _ = model._embed(torch.zeros(1, 3, 56, 56))
    assert torch.equal(long, square)
    other, grid = model._embed(torch.zeros(1, 3, 42, 70))
    assert grid == (3, 5) and other.shape[1] == 15
