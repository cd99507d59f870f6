"""Checkpoints in the layouts that were published: they load, test, and reproduce their own figures with the tools."""

from __future__ import annotations

import json
import re

import pytest
import torch

from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.safe_load import load_file
from tests import tiny_runs
from tests.checkpoints import random_state
from tests.published_layouts import SEGMENTOR_LAYOUTS, TRUNK_LAYOUTS

TINY = VARIANTS.get('internvit_debug').replace(**tiny_runs.TINY_TRUNK)
CLASSES = ('background', 'horizontal stripes', 'vertical stripes', 'diagonal stripes', 'checks', 'dots')
SOURCES = [name for name in TRUNK_LAYOUTS if name != 'deeper' and 'deepspeed' not in name]


@pytest.fixture(scope='module')
def figure(first, data, tmp_path_factory):
    """mIoU of the run's own checkpoint."""
    folder = tmp_path_factory.mktemp('figure')
    assert tiny_runs.test(tiny_runs.CONFIG, first.checkpoint, folder, data=data) == 0
    return json.loads((folder / 'metrics.json').read_text())['mIoU']


def write(layout, path, state, **facts):
    mmcv = {'CLASSES': CLASSES} if layout.startswith('mmcv') else {}
    return SEGMENTOR_LAYOUTS[layout](path, state, **mmcv, **facts)


@pytest.mark.parametrize('layout', SEGMENTOR_LAYOUTS)
def test_whole_segmentor(layout, first, figure, data, tmp_path, caplog):
    source = write(layout, tmp_path / 'model.pth', load_file(first.checkpoint)['state_dict'])
    assert tiny_runs.test(tiny_runs.CONFIG, source, tmp_path / 'run', data=data) == 0
    assert json.loads((tmp_path / 'run' / 'metrics.json').read_text())['mIoU'] == figure
    report = r'\d+ tensors, every one fits \(backbone \d+, neck 8, .*\); 8 renamed from an older layout'
    assert re.search(report, caplog.text)


@pytest.fixture(scope='module')
def losses(data, tmp_path_factory):
    """Losses of a linear probe on a trunk, whatever layout it comes in."""
    state = random_state(TINY)
    found = {}
    for layout in SOURCES:
        folder = tmp_path_factory.mktemp(layout)
        path = TRUNK_LAYOUTS[layout](folder / 'weights', state) if 'hf' in layout else TRUNK_LAYOUTS[layout](
            folder / 'weights.pth', state)
        code = tiny_runs.train(tiny_runs.LINEAR, folder / 'run', '--weights', path, data=data, train_cfg__max_iters=2,
                               model__decode_head__channels=None)
        assert code == 0, layout
        found[layout] = tiny_runs.losses(folder / 'run')
    return found


def test_trunk_trains_the_same_from_every_layout(losses):
    assert len(losses) == len(SOURCES) >= 4
    assert all(curve == losses['flat'] for curve in losses.values())
    assert len(losses['flat']) == 2


def test_a_published_segmentor_of_other_classes_says_how_to_train_from_it(first, data, tmp_path, capsys, caplog):
    """The classifier alone differs; the message holds the option, and with it the run starts."""
    state = dict(load_file(first.checkpoint)['state_dict'])
    for key in [key for key in state if '.conv_seg.' in key]:
        state[key] = torch.cat([state[key]] * 2)
    source = write('deepspeed', tmp_path / 'twelve.pth', state)
    code = tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'run', '--load-from', source, data=data, train_cfg__max_iters=1)
    error = capsys.readouterr().err
    assert code == 2
    assert '--reset-head decode_head auxiliary_head' in error and '(12,), model (6,)' in error
    assert not list((tmp_path / 'run').glob('*.pth'))
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'run', '--load-from', source, '--reset-head', 'decode_head',
                           'auxiliary_head', data=data, train_cfg__max_iters=1, optim_wrapper__optimizer__lr=0.0) == 0
    assert 'afresh: decode_head.conv_seg., auxiliary_head.conv_seg.' in caplog.text
    end = load_file(tmp_path / 'run' / 'iter_1.pth')['state_dict']
    taken = [key for key in state if key.startswith('decode_head.fpn_convs') and key.endswith('conv.weight')]
    assert taken and all(torch.equal(end[key], state[key]) for key in taken)
    assert torch.equal(end['decode_head.conv_seg.bias'], torch.zeros(6))  # mmseg's initial value
    assert end['decode_head.conv_seg.weight'].std().item() == pytest.approx(0.01, rel=0.5)


def test_other_names_of_as_many_classes_ask_for_the_same_option(first, data, tmp_path, capsys):
    source = SEGMENTOR_LAYOUTS['mmcv'](tmp_path / 'x.pth', load_file(first.checkpoint)['state_dict'],
                                       CLASSES=('zebra', *CLASSES[1:]))
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'run', '--load-from', source, data=data) == 2
    error = capsys.readouterr().err
    assert "'zebra'" in error and '--reset-head decode_head auxiliary_head' in error
    assert tiny_runs.test(tiny_runs.CONFIG, source, tmp_path / 'run', data=data) == 2
    assert '--reset-head' not in capsys.readouterr().err  # no way out of a test


@pytest.mark.parametrize(('words', 'message'), [
    (['--reset-head', 'decode_head'], 'belongs to --load-from'),
    (['--reset-head', 'decod_head', '--load-from'], "Did you mean 'decode_head'"),
])
def test_reset_head_is_explained(first, data, tmp_path, capsys, words, message):
    arguments = [*words, first.checkpoint] if words[-1] == '--load-from' else words
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'run', *arguments, data=data) == 2
    assert message in capsys.readouterr().err
