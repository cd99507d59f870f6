"""What a run logs about itself, and the metrics it writes down."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from torch import nn

import internvl_dense.openmmlab  # noqa: F401  registers the hooks
from internvl_dense.openmmlab.hooks import METRICS_FILE, MetricsFileHook, ModelSummaryHook, ThroughputHook
from internvl_dense.openmmlab.launch import build_runner


class Log:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        self.lines.append(line)


def model(**options: Any) -> nn.Module:
    config = {'type': 'InternViT', 'variant': 'internvit_debug', 'embed_dim': 8, 'num_heads': 2, **options}
    with torch.device('meta'):
        return nn.ModuleDict({'backbone': MODELS.build(config), 'head': nn.Conv2d(8, 3, 1)})


@pytest.mark.parametrize(('frozen', 'state'), [(True, 'frozen (not trained, eval mode'), (False, 'trained')])
def test_summary_counts_what_trains(frozen: bool, state: str) -> None:
    network, log = model(frozen=frozen), Log()
    ModelSummaryHook().before_train(SimpleNamespace(model=network, logger=log))
    total, head = (sum(p.numel() for p in part.parameters()) for part in (network, network['head']))
    assert log.lines[0] == f'parameters: {head if frozen else total:,} trainable of {total:,}'
    assert log.lines[1].startswith(f'backbone: internvit_debug, {state}')
    assert '(0, 1, 2, 3)' in log.lines[1]


def test_summary_looks_into_a_distributed_wrapper() -> None:
    class Wrapped(nn.parallel.DistributedDataParallel):
        def __init__(self, module: nn.Module) -> None:
            nn.Module.__init__(self)
            self.module = module

    log = Log()
    ModelSummaryHook().before_train(SimpleNamespace(model=Wrapped(model()), logger=log))
    assert log.lines[1].startswith('backbone: ')


def test_throughput_is_images_over_seconds() -> None:
    hub = MessageHub('throughput')
    hub.update_scalar('train/time', 0.5)
    ThroughputHook().after_train_iter(SimpleNamespace(message_hub=hub), 0, {'inputs': [None] * 3})
    assert hub.get_scalar('train/img_per_s').current() == pytest.approx(6.0)
    if not torch.cuda.is_available():
        assert 10 < hub.get_scalar('train/host_mb').current() < 10**6


@pytest.mark.parametrize('results', [[], [SimpleNamespace(last_metrics=None)], [SimpleNamespace()]], ids=str)
def test_nothing_is_written_without_metrics(results: list[Any], tmp_path: pathlib.Path) -> None:
    runner = SimpleNamespace(test_evaluator=SimpleNamespace(metrics=results), work_dir=str(tmp_path), logger=Log())
    MetricsFileHook().after_test_epoch(runner, {})
    assert list(tmp_path.iterdir()) == []


def test_a_run_logs_and_writes(demo_config: Callable[..., Config], tmp_path: pathlib.Path) -> None:
    runner = build_runner(demo_config('default_hooks.logger.interval=1'))
    runner.train()
    [log] = (tmp_path / 'work').glob('*/*.log')
    text = log.read_text()
    assert 'trainable of' in text and 'backbone: internvit_debug, trained' in text
    assert 'img_per_s' in text
    percent = runner.test()
    metrics = json.loads((tmp_path / 'work' / METRICS_FILE).read_text())
    assert metrics['mIoU'] * 100 == pytest.approx(percent['mIoU'])
    assert len(metrics['per_class']) == 6
