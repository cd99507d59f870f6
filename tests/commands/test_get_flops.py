"""The FLOP count of a 6B segmentor equals the published arithmetic."""

from __future__ import annotations

import re

import pytest

from internvl_dense.commands import get_flops
from internvl_dense.errors import UserError


def count(capsys, *arguments):
    assert get_flops.main([*arguments]) == 0
    return {name: float(value) for name, value in re.findall(r'(\w+):\s+([\d.]+) TFLOP', capsys.readouterr().out)}


def test_6b_upernet_at_504_px(capsys):
    flops = count(capsys, 'ade20k/full_tuning_internvit_6b_224px_ade20k')
    # TFLOP for one 504 px image: 48 blocks, the pyramid's transposed convolutions, UperNet at 1536 channels.
    assert flops['backbone'] == pytest.approx(16.334, rel=0.01)
    assert flops['neck'] == pytest.approx(0.637, rel=0.01)
    assert flops['decode_head'] == pytest.approx(5.039, rel=0.01)
    assert flops['total'] == pytest.approx(sum((16.334, 0.637, 5.039)), rel=0.01)


def test_linear_probing_skips_the_blocks_it_does_not_read(capsys):
    probing = count(capsys, 'ade20k/linear_probing_internvit_6b_224px_ade20k')
    full = count(capsys, 'ade20k/full_tuning_internvit_6b_224px_ade20k')
    assert probing['backbone'] == pytest.approx(full['backbone'] * 45 / 48, rel=0.005)


def test_shape_option(capsys):
    assert count(capsys, 'demo/upernet_internvit_debug_demo', '--shape', '280') != count(
        capsys, 'demo/upernet_internvit_debug_demo')
    with pytest.raises(UserError, match='--shape'):
        get_flops.main(['demo/upernet_internvit_debug_demo', '--shape', '1', '2', '3'])


def test_detector_without_its_heads(capsys):
    """49.0 TFLOP of a trunk with windows of 16 at 1024 px, 2.0 of the pyramid, 0.25 of FPN; all on shapes alone."""
    figures = count(capsys, 'coco/mask_rcnn_internvit_6b_224px_coco', '--shape', '1024')
    assert figures['backbone'] == pytest.approx(48.98 + 2.01, abs=0.05)
    assert figures['neck'] == pytest.approx(0.143 + 0.103, abs=0.005)
    assert figures['total'] == pytest.approx(figures['backbone'] + figures['neck'], abs=0.001)
