"""Deformable attention against the published module: values, gradients, initial offsets."""

from __future__ import annotations

import torch

from internvl_dense.dense.adapter_blocks import MSDeformAttn
from internvl_dense.dense.grids import Sampling

ATOL = 1e-6
GRAD_RTOL = 1e-5


def build(config: dict) -> MSDeformAttn:
    return MSDeformAttn(config['d_model'], config['n_heads'], config['n_levels'], config['n_points'], config['ratio'])


def places(data: dict, dtype: torch.dtype = torch.float32) -> Sampling:
    shapes = tuple((height, width) for height, width in data['spatial_shapes'].tolist())
    sizes = torch.tensor([(width, height) for height, width in shapes], dtype=dtype)
    return Sampling(data['reference_points'].to(dtype), shapes, sizes)


def test_values(golden):
    data = golden('ms_deform_attn')
    module = build(data['config'])
    module.load_state_dict(data['state_dict'])
    out = module(data['query'], data['value'], places(data))
    torch.testing.assert_close(out, data['outputs'][0], atol=ATOL, rtol=0)


def test_gradients_are_those_of_the_same_function_in_fp64(golden):
    data = golden('ms_deform_attn')
    found = []
    for dtype in (torch.float32, torch.float64):
        module = build(data['config']).to(dtype)
        module.load_state_dict(data['state_dict'])
        inputs = [data[name].detach().clone().to(dtype).requires_grad_() for name in ('query', 'value')]
        module(*inputs, places(data, dtype)).square().sum().backward()
        found.append([one.grad.double() for one in (*inputs, *module.parameters())])
    for ours, exact in zip(*found, strict=True):
        assert (ours - exact).norm() <= GRAD_RTOL * exact.norm()


def test_initial_offsets(golden):
    data = golden('ms_deform_attn')
    module = build(data['config'])
    module.reset_parameters()
    torch.testing.assert_close(module.sampling_offsets.bias, data['fresh_sampling_offsets_bias'], atol=ATOL, rtol=0)
