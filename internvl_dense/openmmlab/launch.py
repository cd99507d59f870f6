"""What the commands do: train and test from a config."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, RUNNERS
from mmengine.runner import CheckpointLoader

from internvl_dense.errors import UserError
from internvl_dense.openmmlab import checkpoint_meta
from internvl_dense.openmmlab.config_checks import check_run
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.runner import DenseRunner
from internvl_dense.openmmlab.summary import describe_run


def train(args: Namespace) -> None:
    """Checks config and data, then trains.

    Args:
        args: Of the train command.

    Raises:
        UserError: Anything wrong with the config, the data or the checkpoint to start from, before any work.
    """
    config = load_config(args)
    if args.resume:
        config.resume, config.load_from = True, None if args.resume == 'auto' else args.resume
    elif args.load_from:
        config.load_from = args.load_from
    check_run(config, splits=('train', 'val'), check_data=args.check_data)
    print(describe_run(config))
    if args.dry_run:
        return
    build_runner(config).train()


def test(args: Namespace) -> dict[str, float]:
    """Tests a checkpoint with the config's test split and returns the metrics in percent.

    Raises:
        UserError: The checkpoint does not fit the config, or was trained on other classes.
    """
    config = load_config(args)
    check_run(config, splits=('test',), check_data=args.check_data)
    _check_checkpoint(config, args.checkpoint)
    config.load_from = args.checkpoint
    if args.tta:
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
        config.tta_model = {**config.tta_model, 'module': config.model}
        config.model = config.tta_model
    if args.show_dir:
        config.default_hooks.visualization = {'type': 'SegVisualizationHook', 'draw': True, 'interval': 1}
        config.visualizer.save_dir = args.show_dir
    if args.out:
        config.test_evaluator.update(output_dir=args.out, keep_results=True)
    runner = build_runner(config)
    metrics: dict[str, float] = runner.test()
    return metrics


def build_runner(config: Config) -> DenseRunner:
    """The runner that the config names, of this project's kind."""
    config.setdefault('runner_type', 'DenseRunner')
    runner = RUNNERS.build(config)
    if not isinstance(runner, DenseRunner):
        raise UserError(f"runner_type={config.get('runner_type')!r}: these tools run 'DenseRunner'")
    return runner


def _check_checkpoint(config: Config, path: str) -> None:
    if not os.path.exists(path):
        raise UserError(f'no checkpoint at {path}')
    from mmengine.registry import DATASETS, init_default_scope

    meta = CheckpointLoader.load_checkpoint(path, map_location='meta').get('meta', {})
    saved = meta.get(checkpoint_meta.KEY)
    if saved is None or not saved['classes']:
        return
    init_default_scope(config.get('default_scope', 'mmseg'))
    dataset: Any = DATASETS.build({**config.test_dataloader.dataset, 'lazy_init': True})
    checkpoint_meta.check_classes(saved['classes'], dataset.metainfo['classes'], path)


def dump_json(data: Any, path: str) -> None:
    """Writes `data` as indented JSON."""
    with open(path, 'w', encoding='utf-8') as stream:
        json.dump(data, stream, indent=1)


def build_model_on_meta(config: Config) -> Any:
    """The model of a config without memory: shapes, names and counts only."""
    import torch
    from mmengine.registry import init_default_scope

    init_default_scope(config.get('default_scope', 'mmseg'))
    with torch.device('meta'):
        return MODELS.build(config.model)
