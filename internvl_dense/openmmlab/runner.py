"""One runner for every strategy."""

from __future__ import annotations

import functools
import os
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, find_latest_checkpoint
from mmengine.runner._flexible_runner import FlexibleRunner
from torch import nn

from internvl_dense.data.rules import raise_on_problems
from internvl_dense.openmmlab import checkpoint_meta, logs
from internvl_dense.openmmlab.completion import complete
from internvl_dense.openmmlab.config_checks import numerics_problems
from internvl_dense.openmmlab.summary import first_line

STRATEGY_OF_LAUNCHER = {'none': 'DenseSingle'}  # any other launcher starts several processes
CPU_FRIENDLY_ENV: dict[str, Any] = {'dist_cfg': {}}


@RUNNERS.register_module()
class DenseRunner(FlexibleRunner):
    """mmengine's runner for strategies, which knows before it builds the model whether a checkpoint follows."""

    _resume: Any
    _hooks: list[Any]
    _origin: checkpoint_meta.Origin = None
    _in_run = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        logs.follow(self.logger)
        if self._resume is True and self._load_from is None:
            # Decided here, so that a first run draws its weights and a resumed one does not.
            self._resume = latest_checkpoint(self.work_dir) or False
        self.strategy.checkpoint_follows = bool(self._resume or self._load_from)
        self.strategy.reset_heads = tuple(self.cfg.get('reset_head') or ())

    @classmethod
    def from_cfg(cls, cfg: Any) -> DenseRunner:
        """Builds a runner from a config; `env_cfg` may be absent."""
        cfg = cfg.copy() if isinstance(cfg, Config) else Config(dict(cfg))
        if cfg.get('env_cfg') is None:
            cfg['env_cfg'] = CPU_FRIENDLY_ENV
        complete(cfg)
        if cfg.get('strategy') is None:
            launcher = cfg.get('launcher') or 'none'
            cfg['strategy'] = {'type': STRATEGY_OF_LAUNCHER.get(launcher, 'DenseDDP')}
        # Strategies are mmengine's; looked up in a scope that has none, such as mmseg, they draw a warning.
        cfg['strategy'].setdefault('_scope_', 'mmengine')
        runner: DenseRunner = super().from_cfg(cfg)
        runner._compile = cfg.get('compile', False)  # which mmengine leaves out
        return runner

    def build_strategy(self, *args: Any, **kwargs: Any) -> Any:
        """As in mmengine; the first line of the log says where the weights come from."""
        strategy = super().build_strategy(*args, **kwargs)
        strategy.logger.info(first_line(self.cfg))
        return strategy

    @functools.cached_property
    def config_text(self) -> str:
        """The config as text; laying it out takes longer than a small model takes to save."""
        text: str = self.cfg.pretty_text
        return text

    def train(self) -> nn.Module:
        """Trains; also tools that check nothing beforehand do not claim numerics that the batch contradicts.

        Raises:
            UserError: The config says published numerics, and this run has another batch.
        """
        raise_on_problems(list(numerics_problems(self.cfg)), 'this config cannot run')
        model: nn.Module = super().train()
        return model

    def val(self) -> dict[str, float]:
        """Validates once; nothing is saved, as the best model of a training run would be."""
        hooks = self._hooks
        self._hooks = [hook for hook in hooks if not isinstance(hook, CheckpointHook)]
        try:
            metrics: dict[str, float] = super().val()
        finally:
            self._hooks = hooks
        return metrics

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """As in mmengine, but `before_run` only once in a run; see `load_or_resume`."""
        if fn_name == 'before_run' and self._in_run:
            return
        super().call_hook(fn_name, **kwargs)
        if fn_name in ('before_run', 'after_run'):
            self._in_run = fn_name == 'before_run'

    def load_or_resume(self) -> None:
        """Loads what the config names, after hooks had their `before_run`, in which EMAHook copies the model."""
        self.call_hook('before_run')
        super().load_or_resume()
        if isinstance(self._train_loop, BaseLoop) and not self._resume and is_main_process():
            self._origin = checkpoint_meta.origin(self.model, self._load_from)

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: Any = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict[str, Any] | None = None,
        by_epoch: bool = True,
        backend_args: Any = None,
    ) -> None:
        """Writes a checkpoint that also says what it is, see `checkpoint_meta`.

        Args:
            out_dir: A folder of this machine.
            filename: Name in it.
            file_client_args: As in mmengine, without effect.
            save_optimizer: With the state of the optimizer.
            save_param_scheduler: With the state of the schedules.
            meta: More entries; `epoch` and `iter` are kept as they are given here.
            by_epoch: Whether the call comes at the end of an epoch or of an iteration, for `epoch` and `iter`.
            backend_args: As in mmengine, without effect.
        """
        dataset = self.train_dataloader.dataset
        # mmengine would overwrite `iter`: the best checkpoint, saved after counting up, would be one too far.
        position = {'epoch': self.epoch + int(by_epoch), 'iter': self.iter + int(not by_epoch)}
        meta = {**position, **(meta or {}), 'experiment_name': self.experiment_name}
        if is_main_process():
            meta['cfg'] = self.config_text
            meta['dataset_meta'] = getattr(dataset, 'metainfo', None)
            meta[checkpoint_meta.KEY] = checkpoint_meta.describe(self.model, dataset, meta['cfg'], self._origin)
        self.strategy.save_checkpoint(
            filename=os.path.join(out_dir, filename),
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler,
            extra_ckpt={'meta': meta, 'message_hub': self.message_hub.state_dict()},
            callback=lambda checkpoint: self.call_hook('before_save_checkpoint', checkpoint=checkpoint),
        )

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: Any = 'default',
    ) -> None:
        """Continues a run: model, optimizer, schedules, counters and logged scalars.

        Raises:
            UserError: The checkpoint does not fit, holds no state of a run, or was trained on other classes.
        """
        def before_load(checkpoint: dict[str, Any]) -> None:
            checkpoint_meta.require_run_state(checkpoint, filename)
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)

        checkpoint = self.strategy.resume(
            filename, resume_optimizer=resume_optimizer, resume_param_scheduler=resume_param_scheduler,
            map_location=map_location, callback=before_load,
        )
        self.train_loop._epoch = checkpoint['meta']['epoch']
        self.train_loop._iter = checkpoint['meta']['iter']
        saved = checkpoint_meta.find(checkpoint, filename)
        if saved is not None:
            checkpoint_meta.check_classes(saved['classes'], self.train_dataloader.dataset.metainfo['classes'], filename)
            self._origin = saved['weights']
        self.message_hub.load_state_dict(checkpoint['message_hub'])
        self.logger.info(f'resumed {filename} at epoch {self.epoch}, iteration {self.iter}')

    @property
    def distributed(self) -> bool:
        """Whether several processes take part."""
        return bool(is_distributed())


def latest_checkpoint(work_dir: str) -> str | None:
    """The newest checkpoint of a work directory, also after the directory was moved; None if there is none."""
    path: str | None = find_latest_checkpoint(work_dir)
    if path is None or os.path.exists(path):
        return path
    moved = os.path.join(work_dir, os.path.basename(path))
    return moved if os.path.exists(moved) else path
