"""Blocks of the adapter: what they add, at any shape of the maps and in mixed precision."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from internvl_dense.dense.adapter_blocks import (
    ConvFFN,
    DepthwiseConv,
    Extractor,
    Injector,
    MSDeformAttn,
    init_part,
    tokens_to_map,
)
from internvl_dense.dense.grids import Grid, sampling
from internvl_dense.errors import UserError

CPU = torch.device('cpu')
OWN = [Grid(9, 7, 8), Grid(5, 4, 16), Grid(3, 2, 32)]
TRUNK = Grid(5, 4, 14)
CELLS = sum(grid.num_cells for grid in OWN)


def attention(levels: int, **options: object) -> MSDeformAttn:
    module = MSDeformAttn(12, 3, levels, 2, 0.5, **options)
    nn.init.normal_(module.sampling_offsets.weight, std=0.1)
    return module


def test_kernel_is_chosen_when_the_module_is_built():
    with pytest.raises(UserError, match='Unknown deformable attention kernel'):
        attention(1, kernel='cuda')
    assert attention(1, kernel='grid_sample').kernel.name == 'grid_sample'


def test_without_offsets_a_query_reads_the_cell_it_stands_on():
    module = attention(1)
    for zero in (module.sampling_offsets.weight, module.sampling_offsets.bias, module.attention_weights.weight):
        nn.init.zeros_(zero)
    values = torch.randn(2, TRUNK.num_cells, 12)
    found = module(torch.randn(2, TRUNK.num_cells, 12), values, sampling([TRUNK], [TRUNK], CPU, torch.float32))
    torch.testing.assert_close(found, module.output_proj(module.value_proj(values)), atol=1e-5, rtol=0)


def test_fresh_heads_look_in_directions_of_their_own():
    module = MSDeformAttn(16, 8, 2, 3, 1.0)
    module.reset_parameters()
    offsets = module.sampling_offsets.bias.view(8, 2, 3, 2)
    for head, direction in enumerate(([1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1])):
        for point in range(3):
            wanted = torch.tensor(direction, dtype=torch.float32) * (point + 1)
            torch.testing.assert_close(offsets[head, :, point], wanted.expand(2, 2), atol=1e-5, rtol=0)
    assert not module.sampling_offsets.weight.any() and not module.attention_weights.weight.any()
    assert module.value_proj.weight.abs().max() <= math.sqrt(6 / 32)


def test_depthwise_convolution_sees_each_map_alone():
    module, tokens = DepthwiseConv(6), torch.randn(2, CELLS, 6)
    shapes = [grid.shape for grid in OWN]
    found, start = module(tokens, shapes), 0
    for grid in OWN:
        part = slice(start, start + grid.num_cells)
        expected = F.conv2d(tokens_to_map(tokens[:, part], grid.shape), module.dwconv.weight, module.dwconv.bias,
                            padding=1, groups=6)
        torch.testing.assert_close(tokens_to_map(found[:, part], grid.shape), expected)
        start += grid.num_cells


def test_injector_adds_nothing_at_first_and_then_as_gamma_says():
    module = Injector(12, attention(3), 0.0)
    x, c = torch.randn(2, TRUNK.num_cells, 12), torch.randn(2, CELLS, 12)
    places = sampling([TRUNK], OWN, CPU, torch.float32)
    assert torch.equal(module(x, c, places), x)
    nn.init.constant_(module.gamma, 0.5)
    once = module(x, c, places) - x
    nn.init.constant_(module.gamma, 1.0)
    torch.testing.assert_close(module(x, c, places) - x, 2 * once, atol=1e-5, rtol=0)
    assert once.abs().max() > 1e-3


@pytest.mark.parametrize('hidden', [None, 6])
def test_extractor_with_and_without_mlp(hidden):
    module = Extractor(12, attention(1), hidden, 0.0)
    assert hasattr(module, 'ffn') == (hidden is not None)
    x, c = torch.randn(2, TRUNK.num_cells, 12), torch.randn(2, CELLS, 12)
    places, shapes = sampling(OWN, [TRUNK], CPU, torch.float32), [grid.shape for grid in OWN]
    found = module(c, x, places, shapes)
    expected = c + module.attn(module.query_norm(c), module.feat_norm(x), places)
    if hidden:
        expected = expected + module.ffn(module.ffn_norm(expected), shapes)
    torch.testing.assert_close(found, expected)


def test_drop_path_drops_the_mlp_of_a_sample():
    torch.manual_seed(0)
    module = Extractor(12, attention(1), 6, 0.5).train()
    x, c = torch.randn(16, TRUNK.num_cells, 12), torch.randn(16, CELLS, 12)
    places, shapes = sampling(OWN, [TRUNK], CPU, torch.float32), [grid.shape for grid in OWN]
    added = module(c, x, places, shapes) - c - module.attn(module.query_norm(c), module.feat_norm(x), places)
    dropped = [one.abs().max() < 1e-6 for one in added]
    assert 0 < sum(dropped) < 16
    kept = module.eval()(c, x, places, shapes) - c - module.attn(module.query_norm(c), module.feat_norm(x), places)
    assert all(one.abs().max() > 1e-6 for one in kept)


def test_a_bf16_trunk_keeps_its_dtype_and_the_adapter_its_own():
    x, c = torch.randn(1, TRUNK.num_cells, 12).bfloat16(), torch.randn(1, CELLS, 12)
    injected = Injector(12, attention(3), 1.0)(x, c, sampling([TRUNK], OWN, CPU, torch.float32))
    assert injected.dtype == torch.bfloat16
    extracted = Extractor(12, attention(1), 6, 0.0)(c, injected, sampling(OWN, [TRUNK], CPU, torch.float32),
                                                    [grid.shape for grid in OWN])
    assert extracted.dtype == torch.float32


def test_initial_values():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 64), nn.Conv2d(32, 64, 3, groups=4), nn.ConvTranspose2d(32, 64, 2, 2),
                           nn.LayerNorm(8), ConvFFN(32, 32), Injector(12, attention(1), 0.3))
    for part in module.modules():
        init_part(part)
    assert module[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert module[1].weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 16)), rel=0.05)
    assert module[2].weight.std().item() == pytest.approx(math.sqrt(2 / (4 * 64)), rel=0.05)
    assert module[4].dwconv.dwconv.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.2)
    assert all(not part.bias.any() for part in module[:4]) and module[3].weight.eq(1).all()
    assert module[5].gamma.eq(0.3).all()
