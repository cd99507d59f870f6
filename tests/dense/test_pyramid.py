"""The pyramid: sizes, names, norm and initial weights. Values are compared with the published class in tests/parity."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from internvl_dense.backbones.create import create_backbone
from internvl_dense.backbones.internvit import FeatureInfo
from internvl_dense.dense.pyramid import ChannelLayerNorm, ViTFeaturePyramid, pyramid_info
from internvl_dense.errors import UserError

KEYS = {f'{name}.{kind}' for name in ('up1.0', 'up1.1', 'up1.3', 'up2.0') for kind in ('weight', 'bias')}
FINAL_KEYS = {f'{name}.{kind}' for name in ('up1.4', 'up2.1', 'up3.1', 'up4.1') for kind in ('weight', 'bias')}


def maps(height: int, width: int, count: int = 4) -> list[torch.Tensor]:
    return [torch.randn(2, 8, height, width) for _ in range(count)]


@pytest.mark.parametrize(('height', 'width'), [(6, 6), (5, 9), (2, 3)])
def test_four_maps_at_four_strides(height: int, width: int) -> None:
    sizes = [tuple(one.shape) for one in ViTFeaturePyramid(8)(maps(height, width))]
    assert sizes == [(2, 8, 4 * height, 4 * width), (2, 8, 2 * height, 2 * width), (2, 8, height, width),
                     (2, 8, height // 2, width // 2)]


def test_names_are_the_published_ones() -> None:
    assert ViTFeaturePyramid(8).state_dict().keys() == KEYS
    assert ViTFeaturePyramid(8, final_norm=True).state_dict().keys() == KEYS | FINAL_KEYS


def test_the_third_map_passes_unchanged_and_the_fourth_is_pooled() -> None:
    inputs = maps(4, 6)
    outputs = ViTFeaturePyramid(8)(inputs)
    assert torch.equal(outputs[2], inputs[2])
    assert torch.equal(outputs[3], nn.functional.max_pool2d(inputs[3], 2))


@pytest.mark.parametrize('count', [0, 2, 3, 5])
def test_another_number_of_maps_is_refused(count: int) -> None:
    with pytest.raises(UserError, match=f"reads 4 maps or 1, got {count}; use out_indices='stages' or 'last'"):
        ViTFeaturePyramid(8)(maps(4, 4, count))
    with pytest.raises(UserError, match=f'reads 4 maps or 1, got {count}'):
        pyramid_info(FeatureInfo((0,) * count, (8,) * count, (16,) * count))


def test_one_map_feeds_all_four_branches() -> None:
    pyramid, [one] = ViTFeaturePyramid(8, final_norm=True), maps(5, 6, 1)
    for ours, expected in zip(pyramid([one]), pyramid([one] * 4), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize(('patch', 'strides'), [(16, (4, 8, 16, 32)), (14, (3.5, 7, 14, 28)), (8, (2, 4, 8, 16))])
@pytest.mark.parametrize('out_indices', ['stages', 'last'])
def test_channels_and_strides_can_be_asked(patch: int, strides: tuple[float, ...], out_indices: str) -> None:
    trunk = create_backbone('internvit_debug', device='meta', patch_size=patch, out_indices=out_indices)
    info = pyramid_info(trunk.feature_info)
    assert info.strides == strides
    assert [type(stride) for stride in info.strides] == [type(stride) for stride in strides]
    assert info.channels == (128,) * 4
    assert info.indices == (trunk.out_indices if out_indices == 'stages' else (3,) * 4)
    with torch.device('meta'):
        outputs = ViTFeaturePyramid(128)(trunk(torch.zeros(1, 3, 4 * patch, 6 * patch)))
    for one, channels, stride in zip(outputs, info.channels, info.strides, strict=True):
        assert one.shape == (1, channels, 4 * patch / stride, 6 * patch / stride)


@pytest.mark.parametrize(('height', 'width'), [(5, 9), (6, 8), (1, 3), (1, 1)])
def test_ceil_mode_keeps_the_last_row_and_column(height: int, width: int) -> None:
    inputs = maps(height, width)
    coarse = ViTFeaturePyramid(8, ceil_mode=True)(inputs)[3]
    assert coarse.shape == (2, 8, -(-height // 2), -(-width // 2))
    corner = inputs[3][:, :, (height - 1) // 2 * 2:, (width - 1) // 2 * 2:]
    assert torch.equal(coarse[:, :, -1, -1], corner.amax((2, 3)))


@pytest.mark.parametrize('size', [(1, 5), (5, 1)])
def test_a_single_row_or_column_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError) as error:
        ViTFeaturePyramid(8)(maps(*size))
    assert f'a grid of {size} patches is too small' in str(error.value)


def test_channel_norm_is_over_channels_with_its_own_epsilon() -> None:
    norm = ChannelLayerNorm(8)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    x = torch.randn(2, 8, 3, 4) * 1e-3  # small values show the epsilon
    cell = x[1, :, 2, 3].double()
    expected = (cell - cell.mean()) / (cell.var(correction=0) + 1e-6).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x)[1, :, 2, 3].double(), expected, atol=1e-6, rtol=0)


def test_channel_norm_keeps_bf16_and_computes_in_fp32() -> None:
    norm, x = ChannelLayerNorm(64).bfloat16(), (torch.randn(1, 64, 2, 2) + 100).bfloat16()
    assert norm(x).dtype == torch.bfloat16
    assert torch.equal(norm(x), ChannelLayerNorm(64)(x.float()).bfloat16())


def test_initial_weights() -> None:
    pyramid = ViTFeaturePyramid(64, final_norm=True)
    with torch.no_grad():
        for parameter in pyramid.parameters():
            parameter.fill_(7)
    pyramid.init_weights()
    for name, parameter in pyramid.named_parameters():
        if parameter.ndim == 4:
            # Variance 2 / fan-out of the published class: 64 channels times four cells.
            assert float(parameter.detach().std()) == pytest.approx(math.sqrt(2 / (4 * 64)), rel=0.05), name
        else:
            assert (parameter == (1 if 'weight' in name else 0)).all(), name
