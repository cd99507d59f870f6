"""Checkpoints that are not what the config asks for: each kind is refused with words of its own, before training."""

from __future__ import annotations

import re

import pytest
import torch

from internvl_dense.backbones.variants import VARIANTS
from internvl_dense.openmmlab import checkpoint_meta
from internvl_dense.safe_load import load_file, save_file
from tests import tiny_runs
from tests.checkpoints import random_state

TINY = VARIANTS.get('internvit_debug').replace(**tiny_runs.TINY_TRUNK)
HTML = '<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please log in</body></html>\n' * 20
# What each message must say, beside the name of the file.
WEIGHTS = {
    'other_variant': r'blocks? 4.*5.*has 6 blocks, .*4',
    'key_missing': r'block 1: ls1\.gamma missing',
    'wrong_width': r'pos_embed: file \(1, 101, 24\) / model \(1, 101, 16\)',
    'truncated': r'cut off',
    'html': r'HTML.*download it again',
}
CHECKPOINTS = {
    'other_variant': r'\d+ unknown to the model: backbone\.blocks\.4\.',
    'key_missing': r'1 missing in the checkpoint: backbone\.blocks\.1\.ls1\.gamma',
    'wrong_width': r'\d+ of other shapes: .*backbone\..*\(file \(24,\), model \(16,\)\).* and \d+ more',
    'truncated': r'cut off',
    'html': r'HTML.*download it again',
}


def without(state, name):
    return {key: value for key, value in state.items() if not key.endswith(name)}


def write_kinds(folder, states):
    """One file of each kind, from states for the asked depth and width, another depth and another width."""
    fits, deeper, wider = states
    save_file(deeper, folder / 'other_variant.pth')
    save_file(without(fits, 'blocks.1.ls1.gamma'), folder / 'key_missing.pth')
    save_file(wider, folder / 'wrong_width.pth')
    save_file(fits, folder / 'fits.pth')
    whole = (folder / 'fits.pth').read_bytes()
    (folder / 'truncated.pth').write_bytes(whole[:len(whole) // 2])
    (folder / 'html.pth').write_text(HTML)
    return folder


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    states = [random_state(spec) for spec in (TINY, TINY.replace(depth=6), TINY.replace(embed_dim=24))]
    return write_kinds(tmp_path_factory.mktemp('weights'), states)


@pytest.fixture(scope='module')
def checkpoints(first, data, tmp_path_factory):
    """The same kinds as whole models; the header is that of a real run."""
    folder = tmp_path_factory.mktemp('checkpoints')
    meta = load_file(first.checkpoint)['meta']
    states = []
    for changes in ({}, {'model__backbone__depth': 6}, {'model__backbone__embed_dim': 24}):
        config = tiny_runs.tiny_config(tiny_runs.CONFIG, folder, data, **changes)
        states.append(tiny_runs.build_model(config).state_dict())
    write_kinds(folder, states)
    for name in ('other_variant', 'key_missing', 'wrong_width', 'fits'):
        save_file({'state_dict': load_file(folder / f'{name}.pth'), 'meta': meta}, folder / f'{name}.pth')
    return folder


def assert_nothing_was_trained(work_dir, output):
    assert not list(work_dir.rglob('*.pth'))
    assert 'Iter(' not in output


def refused(capsys, code):
    """The message of a refused run."""
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count('error: ') == 1 and 'Traceback' not in captured.err
    return captured.out, captured.err[captured.err.index('error: '):]


@pytest.mark.parametrize('kind', WEIGHTS)
def test_backbone_weights(weights, data, tmp_path, capsys, kind):
    path = weights / f'{kind}.pth'
    code = tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'run', data=data, model__backbone__weights=path)
    output, message = refused(capsys, code)
    assert not (tmp_path / 'run').exists()  # known from names and shapes, before any work
    assert path.name in message
    for other, pattern in WEIGHTS.items():
        assert bool(re.search(pattern, message, re.DOTALL)) == (other == kind), (other, message)
    assert_nothing_was_trained(tmp_path, output)


@pytest.mark.parametrize('kind', CHECKPOINTS)
def test_whole_checkpoints(checkpoints, data, tmp_path, capsys, kind):
    path = checkpoints / f'{kind}.pth'
    output, message = refused(capsys, tiny_runs.test(tiny_runs.CONFIG, path, tmp_path, data=data))
    assert str(path) in message
    for other, pattern in CHECKPOINTS.items():
        assert bool(re.search(pattern, message, re.DOTALL)) == (other == kind), (other, message)
    assert_nothing_was_trained(tmp_path, output)
    assert not (tmp_path / 'metrics.json').exists()


def test_the_sound_files_are_accepted(weights, checkpoints, data, tmp_path):
    """So the files above are refused for what is wrong with them."""
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'train', data=data, train_cfg__max_iters=1,
                           model__backbone__weights=weights / 'fits.pth') == 0
    assert tiny_runs.test(tiny_runs.CONFIG, checkpoints / 'fits.pth', tmp_path / 'test', data=data) == 0


def test_the_variant_that_fits_is_named(data, tmp_path, capsys):
    save_file(random_state(VARIANTS.get('internvit_debug')), tmp_path / 'debug.pth')
    code = tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'run', data=data, model__backbone__depth=6,
                           model__backbone__embed_dim=128, model__backbone__num_heads=4,
                           model__backbone__weights=tmp_path / 'debug.pth')
    _, message = refused(capsys, code)
    assert re.search("It has 4 blocks, the variant 6; 'internvit_debug'.* fits", message)


def test_exit_code_of_the_tool(weights, data, tmp_path):
    options = tiny_runs.options(data, {'model.backbone.weights': weights / 'wrong_width.pth'})
    process = tiny_runs.tool('train', tiny_runs.CONFIG, '--work-dir', tmp_path / 'run', *options, cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr.rstrip().splitlines()[-1] and 'Traceback' not in process.stderr
    assert_nothing_was_trained(tmp_path, process.stdout)


@pytest.mark.parametrize('command', ['test', '--load-from', '--resume'])
def test_other_classes(first, data, tmp_path, capsys, command):
    checkpoint = load_file(first.checkpoint)
    classes = checkpoint['meta'][checkpoint_meta.KEY]['classes']
    checkpoint['meta'][checkpoint_meta.KEY]['classes'] = ['zebra' if name == 'dots' else name for name in classes]
    path = tmp_path / 'zebra.pth'
    save_file(checkpoint, path)
    if command == 'test':
        code = tiny_runs.test(tiny_runs.CONFIG, path, tmp_path / 'run', data=data)
    else:
        code = tiny_runs.train(tiny_runs.CONFIG, tmp_path / 'run', command, path, data=data)
    output, message = refused(capsys, code)
    assert "'zebra'" in message and "'dots'" in message and "'checks'" not in message
    assert_nothing_was_trained(tmp_path / 'run', output)


def test_a_later_format(first, data, tmp_path, capsys):
    checkpoint = load_file(first.checkpoint)
    checkpoint['meta'][checkpoint_meta.KEY]['format'] = checkpoint_meta.FORMAT + 1
    save_file(checkpoint, tmp_path / 'later.pth')
    _, message = refused(capsys, tiny_runs.test(tiny_runs.CONFIG, tmp_path / 'later.pth', tmp_path, data=data))
    assert 'upgrade internvl-dense' in message


def test_a_trunk_is_no_whole_model(weights, data, tmp_path, capsys):
    _, message = refused(capsys, tiny_runs.test(tiny_runs.CONFIG, weights / 'fits.pth', tmp_path, data=data))
    assert 'missing in the checkpoint: ' in message and 'head.' in message


def test_a_bare_state_dict_is_a_whole_model(first, data, tmp_path):
    torch.save(load_file(first.checkpoint)['state_dict'], tmp_path / 'bare.pth')
    assert tiny_runs.test(tiny_runs.CONFIG, tmp_path / 'bare.pth', tmp_path, data=data) == 0
