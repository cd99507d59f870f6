"""Backbone and pyramid against the published classes: values, gradients, drop path."""

from __future__ import annotations

import pytest
import torch

from internvl_dense.backbones.internvit import drop_path_rates
from internvl_dense.dense.pyramid import ViTFeaturePyramid
from tests.parity.published import ATOL, build_backbone

GRAD_RTOL = 1e-5


def split(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Keys of the trunk and keys of the pyramid."""
    pyramid = {key: value for key, value in state.items() if key.startswith('up')}
    return {key: value for key, value in state.items() if key not in pyramid}, pyramid


@pytest.mark.parametrize('attention', ['eager', 'sdpa'])
def test_plain_backbone_reproduces_every_block(golden, attention):
    data = golden('seg_backbone_plain')
    model = build_backbone({**data['config'], 'out_indices': range(data['config']['depth'])}, attention).eval()
    model.load_state_dict(data['state_dict'])
    tokens, _ = model.forward_tokens(data['input'])
    torch.testing.assert_close(torch.stack(tokens), data['block_tokens'], atol=ATOL, rtol=0)
    chosen = build_backbone(data['config'], attention).eval()
    chosen.load_state_dict(data['state_dict'])
    for ours, theirs in zip(chosen(data['input']), data['outputs'], strict=True):
        torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)


def test_bf16_trunk_stays_as_close_as_the_published_bf16_model(golden):
    data = golden('seg_backbone_plain')
    model = build_backbone(data['config'], dtype=torch.bfloat16).eval()
    model.load_state_dict(data['state_dict'])
    for ours, theirs, exact in zip(model(data['input']), data['outputs_bf16_model'], data['outputs'], strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - exact).abs().max() <= 1.5 * (theirs - exact).abs().max()


@pytest.mark.parametrize('stem', ['fpn_finalnorm_True', 'fpn_finalnorm_False', 'fpn_oddgrid'])
def test_pyramid_reproduces_the_four_maps(golden, stem):
    data = golden(f'seg_backbone_{stem}')
    model = build_backbone(data['config']).eval()
    pyramid = ViTFeaturePyramid(data['config']['embed_dim'], final_norm=data['config'].get('with_final_norm', False))
    trunk, ups = split(data['state_dict'])
    model.load_state_dict(trunk)
    pyramid.load_state_dict(ups)
    for ours, theirs in zip(pyramid(model(data['input'])), data['outputs'], strict=True):
        torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)


@pytest.mark.parametrize('checkpointing', ['none', 'full'])
def test_gradients_match(golden, checkpointing):
    data = golden('seg_backbone_grads')
    model = build_backbone(data['config'], checkpointing=checkpointing).train()
    pyramid = ViTFeaturePyramid(data['config']['embed_dim'], final_norm=True).train()
    trunk, ups = split(data['state_dict'])
    model.load_state_dict(trunk)
    pyramid.load_state_dict(ups)
    image = data['input'].clone().requires_grad_()
    loss = sum((i + 1) * (f**2).mean() for i, f in enumerate(pyramid(model(image))))
    loss.backward()
    grads = {name: p.grad for part in (model, pyramid) for name, p in part.named_parameters()}
    torch.testing.assert_close(loss.detach(), data['loss'], rtol=GRAD_RTOL, atol=0)
    assert grads.keys() == data['grad_norms'].keys()
    for name, norm in data['grad_norms'].items():
        assert float(grads[name].norm()) == pytest.approx(float(norm), rel=GRAD_RTOL), name
    for name, grad in data['grads'].items():
        torch.testing.assert_close(grads[name], grad, rtol=GRAD_RTOL, atol=1e-7)
    torch.testing.assert_close(image.grad, data['input_grad'], rtol=GRAD_RTOL, atol=1e-7)


def test_drop_path_rates_match(golden):
    data = golden('drop_path')
    for depth in (48, 45):
        expected = data[f'rate_04_depth{depth}'].double()
        torch.testing.assert_close(torch.tensor(drop_path_rates(0.4, depth)).double(), expected, rtol=1e-6, atol=1e-9)
