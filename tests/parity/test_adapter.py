"""ViT-Adapter against the published class: maps, what happens inside, what trains, what the initial values are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from internvl_dense.backbones.trunk_keys import TRUNK_PARTS
from internvl_dense.dense import InternViTAdapter
from internvl_dense.dense.pyramid import ChannelLayerNorm
from tests.parity.published import build_adapter

ATOL = 3e-4
SQUARE = ('adapter_square128', 'adapter_square64_nofinalnorm')


def load(golden: Any, stem: str, published: bool, **options: Any) -> InternViTAdapter:
    """The adapter with the published parameters; ours lacks the slot of the class token that nobody reads."""
    data = golden(stem)
    model = build_adapter(data['config'], published, **options).eval()
    state = dict(data['state_dict'])
    if not published:
        state['pos_embed'] = state['pos_embed'][:, 1:]
    model.load_state_dict(state)
    return model


def assert_maps(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)


@pytest.mark.parametrize('published', [False, True])
@pytest.mark.parametrize('stem', SQUARE)
def test_square_images(golden, stem, published):
    data = golden(stem)
    assert_maps(load(golden, stem, published)(data['input']), data['outputs'])


def watch(model: InternViTAdapter) -> dict[str, Any]:
    """What the parts of the adapter put out during the next forward pass."""
    seen: dict[str, Any] = {}

    def keep(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _, inputs, output: seen.update({name: output}))

    keep('spm', model.spm)
    for i, (run, interaction) in enumerate(zip(model.options.runs, model.interactions, strict=True)):
        keep(f'injector{i}', interaction.injector)
        keep(f'interaction{i}.x', model.blocks[run[1]])
        keep(f'extractor{i}', interaction.extractor)
        keep(f'interaction{i}.c', interaction.extractors[-1])
    return seen


def test_every_step_inside(golden):
    data = golden('adapter_square128')
    model = load(golden, 'adapter_square128', published=True)
    seen = watch(model)
    model(data['input'])
    expected = data['intermediates']
    spm = [seen['spm'][0], *(seen['spm'][level].flatten(2).transpose(1, 2) for level in (1, 2, 3))]
    assert_maps(spm, expected['spm'])
    steps = {key: value for key, value in expected.items() if torch.is_tensor(value)}
    for i in range(4):
        steps |= {f'interaction{i}.{part}': expected[f'interaction{i}'][part] for part in ('x', 'c')}
    assert len(steps) == 4 + 1 + 8
    assert_maps([seen[name] for name in steps], list(steps.values()))


@pytest.mark.parametrize('published', [False, True])
def test_another_shape_with_resampled_positions(golden, published):
    data = golden('adapter_nonsquare')
    assert_maps(load(golden, data['state_dict_in'], published)(data['input']), data['outputs'])


def test_scrambled_positions_of_another_shape_are_repeated_on_request_alone(golden):
    data = golden('adapter_nonsquare')
    raw = data['raw_same_token_count']
    assert_maps(load(golden, data['state_dict_in'], published=True)(raw['input']), raw['outputs'])
    ours = load(golden, data['state_dict_in'], published=False)(raw['input'])
    assert all((one - theirs).abs().max() > 1 for one, theirs in zip(ours, raw['outputs'], strict=True))


@pytest.mark.parametrize('checkpointing', ['none', 'full'])
def test_three_maps_are_the_last_three(golden, checkpointing):
    data = golden('adapter_square128')
    model = build_adapter(data['config'], published=True, out_indices=(1, 2, 3)).eval()
    model.checkpointing = checkpointing
    absent = ('up.', 'norm1.', 'spm.fc1.')
    model.load_state_dict({key: value for key, value in data['state_dict'].items() if not key.startswith(absent)})
    assert_maps(model(data['input']), data['outputs'][1:])


def test_names_and_what_trains(golden):
    data = golden('adapter_square128')
    model = build_adapter(data['config'], published=True)
    assert model.state_dict().keys() == data['state_dict'].keys()
    trained = sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    assert trained == sorted(data['trainable_params'])
    frozen = {name.partition('.')[0] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == set(data['frozen_top_level']) < set(TRUNK_PARTS)


def test_initial_values(golden):
    facts = golden('adapter_square128')['init_facts']
    torch.manual_seed(0)
    model = build_adapter(golden('adapter_square128')['config'], published=True)
    assert model.level_embed.std().item() == pytest.approx(facts['level_embed_std'], rel=0.2)
    assert model.interactions[0].injector.gamma.eq(facts['injector_gamma']).all()
    bias = model.interactions[0].injector.attn.sampling_offsets.bias
    torch.testing.assert_close(bias, facts['so_bias'], atol=1e-6, rtol=0)


def test_epsilons(golden):
    facts = golden('adapter_square128')['init_facts']['ln_eps']
    model = build_adapter(golden('adapter_square128')['config'], published=True)
    norms = {name: module.eps for name, module in model.named_modules()
             if isinstance(module, (nn.LayerNorm, ChannelLayerNorm)) and not name.startswith('blocks.')}
    # The published file lists what its classes state; ours state the same number for each norm.
    assert {name: norms[name] for name in facts} == facts
    assert norms.keys() == facts.keys()
