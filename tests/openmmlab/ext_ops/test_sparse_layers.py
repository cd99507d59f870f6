"""The mask of PSANet and masked convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import MaskedConv2d, PSAMask
from torch.autograd import gradcheck


@pytest.mark.parametrize('kind', ['collect', 'distribute'])
def test_psa_mask_moves_relative_places_to_absolute_ones(kind: str) -> None:
    height, width, rows, columns = 3, 4, 3, 5
    x = torch.randn(2, rows * columns, height, width, dtype=torch.float64, requires_grad=True)
    layer = PSAMask(kind, (rows, columns))
    expected = torch.zeros(2, height, width, height, width, dtype=torch.float64)  # from, to
    for h in range(height):
        for w in range(width):
            for i in range(rows):
                for j in range(columns):
                    y, z = h + i - rows // 2, w + j - columns // 2
                    if 0 <= y < height and 0 <= z < width:
                        expected[:, h, w, y, z] = x.detach()[:, i * columns + j, h, w]
    if kind == 'collect':
        expected = expected.permute(0, 3, 4, 1, 2)
    assert layer(x).equal(expected.reshape(2, height * width, height, width))
    assert gradcheck(layer, x, fast_mode=True)


def test_masked_convolution_is_the_convolution_where_the_mask_is() -> None:
    conv = MaskedConv2d(3, 4, (3, 5), padding=(1, 2))
    x, mask = torch.randn(1, 3, 6, 7), torch.rand(1, 6, 7) > 0.6
    expected = F.conv2d(x, conv.weight, conv.bias, padding=(1, 2)) * mask
    assert (conv(x, mask) - expected).abs().max() < 1e-5
    assert not conv(x, torch.zeros_like(mask)).any()
