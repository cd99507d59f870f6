"""The trunk of the published detector: windows, no class token, a pyramid from the last map."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch

from internvl_dense.backbones.checkpoint import load_backbone_weights
from internvl_dense.backbones.internvit import InternViT
from internvl_dense.dense.pyramid import ViTFeaturePyramid
from tests.parity.published import ATOL, build_detector_backbone

STEMS = ('mixed', 'allwin', 'global', 'qkvbias')


@pytest.fixture
def detector(golden: Any, tmp_path: pathlib.Path) -> Any:
    """Returns golden data and a function that builds a trunk from them, its weights read from a detector's file."""
    def get(stem: str) -> tuple[dict[str, Any], Any]:
        data = golden(f'det_backbone_{stem}')
        path = tmp_path / 'detector.pth'
        torch.save({'state_dict': {f'backbone.{key}': value for key, value in data['state_dict'].items()}}, path)

        def build(**options: Any) -> InternViT:
            model = build_detector_backbone({**data['config'], 'out_indices': range(4)}, **options).eval()
            report = load_backbone_weights(model, path)
            assert report.dropped_class == ('class slot of pos_embed',)
            assert {key.split('.')[1] for key in report.known_unused} <= {'up1', 'up2', 'up3', 'up4'}
            assert not report.missing
            return model

        return data, build

    return get


@pytest.mark.parametrize('attention', ['eager', 'sdpa'])
@pytest.mark.parametrize('stem', STEMS)
def test_every_block_is_reproduced(detector, stem, attention):
    data, build = detector(stem)
    model = build(attention=attention)
    for run in data['runs']:
        tokens, grid = model.forward_tokens(run['input'])
        assert grid == tuple(run['grid'])
        torch.testing.assert_close(torch.stack(tokens), run['block_tokens'], atol=ATOL, rtol=0)


@pytest.mark.parametrize('stem', STEMS)
def test_the_pyramid_from_the_last_map_is_reproduced(detector, stem):
    data, build = detector(stem)
    pyramid = ViTFeaturePyramid(data['config']['embed_dim'], final_norm=data['config']['with_final_norm'])
    pyramid.load_state_dict({key: value for key, value in data['state_dict'].items() if key.startswith('up')})
    model = build()
    for run in data['runs']:
        for ours, theirs in zip(pyramid(model(run['input'])[-1:]), run['outputs'], strict=True):
            torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)


@pytest.mark.parametrize('stem', ['allwin', 'qkvbias'])
def test_masked_padding_differs_where_windows_reach_beyond_the_grid_and_nowhere_else(detector, stem):
    data, build = detector(stem)
    zeros, masked = build(), build(window_padding='masked')
    [run] = data['runs']  # a grid of 6 x 9 in windows of 4
    ours, theirs = (model.forward_tokens(run['input'])[0][0].unflatten(1, (6, 9)) for model in (masked, zeros))
    assert torch.equal(ours[:, :4, :8], theirs[:, :4, :8])
    changed = (ours != theirs).any(-1)
    assert changed[:, 4:].all() and changed[:, :, 8:].all()
    whole = torch.randn(1, 3, 8 * 14, 12 * 14)
    for ours, theirs in zip(masked(whole), zeros(whole), strict=True):
        assert torch.equal(ours, theirs)
