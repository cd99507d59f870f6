"""Options of the commands that change what is computed: bf16, multi-scale and flip, a frozen trunk."""

from __future__ import annotations

import functools
import json
import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from PIL import Image

from internvl_dense.openmmlab.launch import build_runner
from internvl_dense.safe_load import load_file, save_file
from tests import tiny_runs


class DtypeHook(Hook):
    """Notes what the last layer gives and what the loss is computed in."""

    def __init__(self):
        self.seen = {}

    def before_train(self, runner):
        head = runner.model.decode_head
        for name, module in (('logits', head.conv_seg), ('loss', head.loss_decode)):
            module.register_forward_hook(functools.partial(self.note, name))

    def note(self, name, module, inputs, output):
        self.seen.setdefault(name, (inputs[0].dtype, output.dtype))  # the first call, before any validation


@pytest.mark.parametrize(('wrapper', 'dtype'), [('Bf16OptimWrapper', torch.bfloat16), ('OptimWrapper', torch.float32)])
def test_loss_is_fp32_with_and_without_autocast(data, tmp_path, wrapper, dtype):
    config = tiny_runs.tiny_config(tiny_runs.CONFIG, tmp_path, data, optim_wrapper__type=wrapper,
                                   train_cfg__max_iters=1)
    runner, hook = build_runner(config), DtypeHook()
    runner.register_hook(hook)
    runner.train()
    assert hook.seen['logits'][1] == dtype
    assert hook.seen['loss'] == (torch.float32, torch.float32)
    assert {value.dtype for value in runner.model.state_dict().values()} == {torch.float32, torch.int64}


def test_amp(first, data, tmp_path):
    assert tiny_runs.train(tiny_runs.CONFIG, tmp_path, '--amp', '--seed', 7, data=data) == 0
    expected, found = tiny_runs.losses(first.work_dir), tiny_runs.losses(tmp_path)
    assert found.keys() == expected.keys()
    assert all(found[i] == pytest.approx(expected[i], rel=0.02) for i in found)  # bf16 has 8 bits
    assert found != expected


def mean_of_views(model, path):
    """Class ids (H, W) by the mean probability over an image and its mirror image."""
    image = torch.from_numpy(cv2.imread(str(path))).permute(2, 0, 1)
    with torch.inference_mode():
        plain, mirrored = (model.test_step({'inputs': [view]})[0].seg_logits.data.softmax(0)
                           for view in (image, image.flip(-1)))
    return (plain + mirrored.flip(-1)).argmax(0)


def test_flip_averages_both_views(first, data, tmp_path):
    config = tmp_path / 'flip.py'
    base = tiny_runs.ROOT / 'configs' / f'{tiny_runs.CONFIG}.py'
    flips = '[dict(type="RandomFlip", prob=p, direction="horizontal") for p in (0.0, 1.0)]'
    config.write_text(f"""_base_ = [{str(base)!r}]
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[
    {flips}, [dict(type='LoadAnnotations', reduce_zero_label=False)], [dict(type='PackSegInputs')]])]
""")
    assert tiny_runs.test(config, first.checkpoint, tmp_path, '--tta', '--out', tmp_path / 'masks', data=data) == 0
    model = tiny_runs.build_model(tiny_runs.tiny_config(tiny_runs.CONFIG, tmp_path, data)).eval()
    model.load_state_dict(load_file(first.checkpoint)['state_dict'])
    pictures = sorted((data / 'images' / 'validation').glob('*.jpg'))
    assert len(pictures) == 5
    for path in pictures:
        mask = torch.from_numpy(np.asarray(Image.open(tmp_path / 'masks' / f'{path.stem}.png')).astype(np.int64))
        assert torch.equal(mask, mean_of_views(model, path))


def test_multi_scale_and_flip(first, data, tmp_path):
    assert tiny_runs.test(tiny_runs.CONFIG, first.checkpoint, tmp_path / 'plain', data=data) == 0
    assert tiny_runs.test(tiny_runs.CONFIG, first.checkpoint, tmp_path / 'tta', '--tta', data=data) == 0
    plain, averaged = (json.loads((tmp_path / name / 'metrics.json').read_text()) for name in ('plain', 'tta'))
    assert averaged.keys() == plain.keys()
    assert averaged != plain
    assert all(0 < averaged[name] <= 1 for name in ('mIoU', 'mAcc', 'aAcc'))


def test_multi_scale_needs_a_pipeline(first, data, tmp_path, capsys):
    plain = tmp_path / 'plain.py'
    base = tiny_runs.ROOT / 'configs' / f'{tiny_runs.CONFIG}.py'
    plain.write_text(f'_base_ = [{str(base)!r}]\ntta_pipeline = None\n')
    assert tiny_runs.test(plain, first.checkpoint, tmp_path, '--tta', data=data) == 2
    assert 'has no tta_pipeline' in capsys.readouterr().err


def test_frozen_trunk_stays_as_it_is(first, data, tmp_path):
    trained = load_file(first.checkpoint)['state_dict']
    trunk = {key.removeprefix('backbone.'): value for key, value in trained.items() if key.startswith('backbone.')}
    save_file(trunk, tmp_path / 'trunk.pth')
    work_dir = tmp_path / 'run'
    options = tiny_runs.options(data, {'model.decode_head.channels': None,
                                       'model.backbone.weights': tmp_path / 'trunk.pth'})
    process = tiny_runs.tool('train', tiny_runs.LINEAR, '--work-dir', work_dir, *options, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    end = load_file(work_dir / 'iter_4.pth')
    assert not [key for key in end['state_dict'] if key.startswith('backbone.')]  # it comes from its weights again
    names = [name for group in end['optimizer']['param_groups'] for name in group['param_names']]
    heads = ['decode_head.conv_seg.bias', 'decode_head.conv_seg.weight', 'decode_head.norm.bias',
             'decode_head.norm.weight']
    assert sorted(names) == heads and len(end['optimizer']['state']) == len(heads)
    assert not torch.equal(end['state_dict']['decode_head.norm.running_mean'], torch.zeros(16))  # and the head trains
    trainable = sum(end['state_dict'][name].numel() for name in heads)
    assert re.search(rf'parameters: {trainable:,} trainable of [\d,]{{5,}}', process.stdout)
    assert 'frozen (not trained, eval mode, not in the optimizer)' in process.stdout
    assert end['meta']['internvl_dense']['weights']['path'] == str(tmp_path / 'trunk.pth')


class ModeHook(Hook):
    """Notes the mode of trunk and head during training."""

    def __init__(self):
        self.modes = set()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        trunk = runner.model.backbone
        self.modes.add((any(module.training for module in trunk.modules()), runner.model.decode_head.training))


def test_frozen_trunk_is_in_eval_mode_also_after_a_validation(data, tmp_path):
    config = tiny_runs.tiny_config(tiny_runs.LINEAR, tmp_path, data, model__decode_head__channels=None,
                                   model__backbone__weights='random')
    runner, hook = build_runner(config), ModeHook()
    runner.register_hook(hook)
    runner.train()
    assert hook.modes == {(False, True)}
