"""The runner beside what the commands reach: single validation, compilation, hooks, where a moved run goes on."""

from __future__ import annotations

import pytest
from mmengine.hooks import CheckpointHook, Hook

from internvl_dense.errors import UserError
from internvl_dense.openmmlab.launch import build_runner
from internvl_dense.openmmlab.runner import latest_checkpoint
from internvl_dense.safe_load import load_file
from tests import tiny_runs


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_runs.make_data(tmp_path_factory.mktemp('sample'))


def build(data, work_dir, **changes):
    return build_runner(tiny_runs.tiny_config(tiny_runs.CONFIG, work_dir, data, **changes))


class StageHook(Hook):
    """Notes the order of stages."""

    def __init__(self):
        self.stages = []

    def before_run(self, runner):
        self.stages.append('before_run')

    def after_load_checkpoint(self, runner, checkpoint):
        self.stages.append('after_load_checkpoint')

    def before_train(self, runner):
        self.stages.append('before_train')

    def after_run(self, runner):
        self.stages.append('after_run')


def test_stages_come_in_the_order_of_mmengines_runner(data, tmp_path):
    build(data, tmp_path / 'first', train_cfg__max_iters=2).train()
    runner, hook = build(data, tmp_path / 'second', load_from=tmp_path / 'first' / 'iter_2.pth',
                         train_cfg__max_iters=2), StageHook()
    runner.register_hook(hook)
    runner.train()
    assert hook.stages == ['before_run', 'after_load_checkpoint', 'before_train', 'after_run']
    runner.test()
    assert hook.stages[4:] == ['before_run', 'after_run']


def test_one_validation_saves_nothing(data, tmp_path):
    runner = build(data, tmp_path)
    metrics = runner.val()
    assert 0 <= metrics['mIoU'] <= 100
    assert not list(tmp_path.glob('*.pth'))
    assert sum(isinstance(hook, CheckpointHook) for hook in runner.hooks) == 1  # and a training run would save


def test_compilation_is_handed_on(data, tmp_path):
    assert build(data, tmp_path / 'a', compile__backend='eager')._compile == {'backend': 'eager'}
    assert build(data, tmp_path / 'b')._compile is False


def test_an_epoch_is_counted_once(data, tmp_path):
    """Epoch-based training keeps the counters that the checkpoint hook gives, too."""
    config = tiny_runs.tiny_config(tiny_runs.CONFIG, tmp_path, data, default_hooks__checkpoint__by_epoch=True,
                                   default_hooks__checkpoint__interval=1,
                                   train_dataloader__sampler__type='DefaultSampler')
    config.train_cfg = {'type': 'EpochBasedTrainLoop', 'max_epochs': 2, 'val_interval': 1}
    build_runner(config).train()
    meta = load_file(tmp_path / 'epoch_2.pth')['meta']
    assert (meta['epoch'], meta['iter']) == (2, 8)


def test_newest_checkpoint(tmp_path):
    assert latest_checkpoint(str(tmp_path)) is None
    (tmp_path / 'iter_2.pth').touch()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_2.pth'))
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / 'iter_2.pth')
    moved = tmp_path.rename(tmp_path.with_name('moved'))
    assert latest_checkpoint(str(moved)) == str(moved / 'iter_2.pth')
    (moved / 'iter_2.pth').unlink()
    assert latest_checkpoint(str(moved)) == str(tmp_path / 'iter_2.pth')  # which loading will miss by name


@pytest.mark.parametrize(('numerics', 'refused'), [('published', True), ('fast', False)])
def test_published_numerics_need_the_published_batch_whoever_starts_the_run(data, tmp_path, numerics, refused):
    config = tiny_runs.tiny_config(tiny_runs.CONFIG, tmp_path, data, model__numerics=numerics, train_cfg__max_iters=1)
    config.auto_scale_lr = {'enable': False, 'base_batch_size': 16}
    runner = build_runner(config)
    if refused:
        with pytest.raises(UserError, match='rests on 16 images in a step.*this run has 2 x 1 = 2'):
            runner.train()
        assert not list(tmp_path.glob('*.pth'))
    else:
        runner.train()
