"""Hooks that tell what a run is doing and write down what it reached."""

from __future__ import annotations

import json
import os
import resource
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from internvl_dense.backbones.internvit import InternViT
from internvl_dense.openmmlab import checkpoint_meta
from internvl_dense.openmmlab.strict_load import unwrap

METRICS_FILE = 'metrics.json'


@HOOKS.register_module()
class ModelSummaryHook(Hook):
    """Logs how many parameters train, and which trunk is frozen."""

    def before_train(self, runner: Any) -> None:
        model = unwrap(runner.model)
        total = sum(p.numel() for p in model.parameters())
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        runner.logger.info(f'parameters: {trainable:,} trainable of {total:,}')
        for name, module in model.named_modules():
            if isinstance(module, InternViT):
                state = 'frozen (not trained, eval mode, not in the optimizer)' if module.frozen else 'trained'
                runner.logger.info(f'{name}: {module.spec.name}, {state}, maps after blocks {module.out_indices}')


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Adds images per second over all processes, and host memory where there is no GPU, to the log."""

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        hub = runner.message_hub
        seconds = hub.get_scalar('train/time').current()
        hub.update_scalar('train/img_per_s', len(data_batch['inputs']) * get_world_size() / max(seconds, 1e-9))
        if not torch.cuda.is_available():
            hub.update_scalar('train/host_mb', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


@HOOKS.register_module()
class MetricsFileHook(Hook):
    """Writes the unrounded metrics of the last test to `metrics.json` in the work directory.

    Its entry `run` says of which checkpoint they are, from which weights that was trained, and by which numerics.
    """

    _trained_from: Any = None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint_meta.find(checkpoint, 'the checkpoint')
        self._trained_from = saved['weights'] if saved else None

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        results = [metric.last_metrics for metric in runner.test_evaluator.metrics if hasattr(metric, 'last_metrics')]
        if results and results[0] is not None and is_main_process():
            path = os.path.join(runner.work_dir, METRICS_FILE)
            run = {'checkpoint': runner.cfg.get('load_from'), 'trained_from': self._trained_from,
                   'numerics': checkpoint_meta.numerics_of(runner.model)}
            with open(path, 'w', encoding='utf-8') as stream:
                json.dump({**results[0], 'run': run}, stream, indent=1)
            runner.logger.info(f'metrics: {path}')
