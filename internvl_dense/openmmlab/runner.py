"""One runner for every strategy."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmengine.dist import is_distributed
from mmengine.registry import RUNNERS
from mmengine.runner import find_latest_checkpoint
from mmengine.runner._flexible_runner import FlexibleRunner

from internvl_dense.openmmlab import checkpoint_meta

STRATEGY_OF_LAUNCHER = {'none': 'DenseSingle'}  # any other launcher starts several processes
CPU_FRIENDLY_ENV: dict[str, Any] = {'dist_cfg': {}}


@RUNNERS.register_module()
class DenseRunner(FlexibleRunner):
    """mmengine's runner for strategies, which knows before it builds the model whether a checkpoint follows."""

    _resume: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._resume is True and self._load_from is None:
            # Decided here, so that a first run draws its weights and a resumed one does not.
            self._resume = find_latest_checkpoint(self.work_dir) or False
        self.strategy.checkpoint_follows = bool(self._resume or self._load_from)

    @classmethod
    def from_cfg(cls, cfg: Any) -> DenseRunner:
        """Builds a runner from a config; `env_cfg` may be absent."""
        cfg = cfg.copy() if isinstance(cfg, Config) else Config(dict(cfg))
        if cfg.get('env_cfg') is None:
            cfg['env_cfg'] = CPU_FRIENDLY_ENV
        if cfg.get('strategy') is None:
            launcher = cfg.get('launcher') or 'none'
            cfg['strategy'] = {'type': STRATEGY_OF_LAUNCHER.get(launcher, 'DenseDDP')}
        runner: DenseRunner = super().from_cfg(cfg)
        return runner

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Writes a checkpoint that also says what it is, see `checkpoint_meta`."""
        meta = dict(kwargs.pop('meta', None) or {})
        meta[checkpoint_meta.KEY] = checkpoint_meta.describe(self.model, self.train_dataloader.dataset, self.cfg)
        super().save_checkpoint(out_dir, filename, *args, meta=meta, **kwargs)

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: Any = 'default',
    ) -> None:
        """Continues a run: model, optimizer, schedules, counters and logged scalars.

        Raises:
            UserError: The checkpoint does not fit, or was trained on other classes.
        """
        checkpoint = self.strategy.resume(
            filename, resume_optimizer=resume_optimizer, resume_param_scheduler=resume_param_scheduler,
            map_location=map_location,
            callback=lambda checkpoint: self.call_hook('after_load_checkpoint', checkpoint=checkpoint),
        )
        self.train_loop._epoch = checkpoint['meta']['epoch']
        self.train_loop._iter = checkpoint['meta']['iter']
        saved = checkpoint['meta'].get(checkpoint_meta.KEY)
        if saved is not None:
            checkpoint_meta.check_classes(saved['classes'], self.train_dataloader.dataset.metainfo['classes'], filename)
        self.message_hub.load_state_dict(checkpoint['message_hub'])
        self.logger.info(f'resumed {filename} at epoch {self.epoch}, iteration {self.iter}')

    @property
    def distributed(self) -> bool:
        """Whether several processes take part."""
        return bool(is_distributed())
