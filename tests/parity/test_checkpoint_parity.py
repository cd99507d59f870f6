"""Loading published checkpoints: resampled values exactly, outputs, and the Hugging Face names."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import save_file as save_safetensors

from internvl_dense.backbones.dialects import DIALECTS
from internvl_dense.backbones.internvit import InternViT
from tests.parity.published import ATOL, build_backbone, build_hf_backbone

Golden = Callable[[str], Any]
RESIZE_CASES = ('p56_to_98_patch14', 'p56_to_128_patch16', 'p112_to_70_patch14', 'p56_to_64_patch16',
                'p56_to_56_patch14', 'p56_to_64_patch8')
RESAMPLED = ('pos_embed', 'patch_embed.proj.weight')
HF_STEMS = ('hf_rms_qknorm', 'hf_layernorm_qkvbias')


def resize_case(golden: Golden, name: str) -> dict[str, Any]:
    [case] = [case for case in golden('load_pretrained_resize')['cases'] if case['name'] == name]
    return case


def save_resize_case(case: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    path = folder / 'weights.pth'
    state = case['pretrained']
    torch.save({'module': state} if case['wrapped_in_module'] else state, path)
    return path


def load_hf(data: dict[str, Any], folder: pathlib.Path, **kwargs: Any) -> InternViT:
    path = folder / 'model.safetensors'
    save_safetensors(data['state_dict'], path)
    return build_hf_backbone(data['config'], weights=path, **kwargs).eval()


def test_no_resize_case_is_left_out(golden: Golden) -> None:
    cases = golden('load_pretrained_resize')['cases']
    assert {case['name'] for case in cases} == set(RESIZE_CASES)
    assert any(case['wrapped_in_module'] for case in cases)


@pytest.mark.parametrize('name', RESIZE_CASES)
def test_values_are_resampled_exactly_and_outputs_follow(golden: Golden, name: str, tmp_path: pathlib.Path) -> None:
    case = resize_case(golden, name)
    model = build_backbone(case['config'], weights=save_resize_case(case, tmp_path)).eval()
    state = model.state_dict()
    assert state.keys() == set(case['state_dict_keys'])
    for key, value in state.items():
        expected = case['resized'][key] if key in RESAMPLED else case['pretrained'][key]
        torch.testing.assert_close(value, expected, atol=0, rtol=0, msg=key)
    for ours, theirs in zip(model(case['input']), case['outputs'], strict=True):
        torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)


def test_only_known_keys_are_left_unused(
    golden: Golden, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = resize_case(golden, RESIZE_CASES[0])
    with caplog.at_level(logging.INFO, logger='internvl_dense'):
        build_backbone(case['config'], weights=save_resize_case(case, tmp_path))
    extra = case['pretrained'].keys() - set(case['state_dict_keys'])
    assert extra == {'clip_projector.norm1_q.weight'}
    assert 'not used  clip_projector (1)' in caplog.text


@pytest.mark.parametrize('stem', HF_STEMS)
def test_hugging_face_names_are_the_published_ones(golden: Golden, stem: str) -> None:
    data = golden(stem)
    assert {ours for _, ours in data['key_map']} == build_hf_backbone(data['config']).state_dict().keys()
    for theirs, ours in data['key_map']:
        slot = DIALECTS['hf'].to_native(theirs)
        assert slot is not None
        assert (slot.key, slot.parts) == (ours, 1)
        assert [name for name, _ in DIALECTS['hf'].to_foreign(ours)] == [theirs]


@pytest.mark.parametrize('attention', ['eager', 'sdpa'])
@pytest.mark.parametrize('stem', HF_STEMS)
def test_hidden_states_of_the_hugging_face_model(
    golden: Golden, stem: str, attention: str, tmp_path: pathlib.Path
) -> None:
    data = golden(stem)
    depth = data['config']['num_hidden_layers']
    model = load_hf(data, tmp_path, attention=attention, out_indices=range(depth))
    for theirs, ours in data['key_map']:
        assert torch.equal(model.state_dict()[ours], data['state_dict'][theirs]), ours
    for run in data['runs']:
        embedded, _ = model._embed(run['input'])
        tokens, _ = model.forward_tokens(run['input'])
        hidden = torch.stack([embedded, *tokens])
        torch.testing.assert_close(hidden, run['hidden_states'], atol=ATOL, rtol=0)
        torch.testing.assert_close(hidden[-1], run['last_hidden_state'], atol=ATOL, rtol=0)
        torch.testing.assert_close(hidden[-1][:, 0], run['pooler_output'], atol=ATOL, rtol=0)


def test_hugging_face_weights_give_the_maps_of_the_segmentation_backbone(
    golden: Golden, tmp_path: pathlib.Path
) -> None:
    data = golden('hf_rms_qknorm')
    model = load_hf(data, tmp_path, out_indices=data['mmseg_config']['out_indices'])
    for ours, theirs in zip(model(data['input']), data['mmseg_outputs'], strict=True):
        torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)
