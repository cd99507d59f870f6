"""What the commands do: train and test from a config."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, RUNNERS, init_default_scope

from internvl_dense.data.rules import format_problems
from internvl_dense.errors import UserError
from internvl_dense.openmmlab import checkpoint_meta, logs
from internvl_dense.openmmlab.completion import HEADS
from internvl_dense.openmmlab.config_checks import check_run
from internvl_dense.openmmlab.configs import load_config
from internvl_dense.openmmlab.dataset_labels import config_label_policy
from internvl_dense.openmmlab.processes import planned_processes
from internvl_dense.openmmlab.runner import DenseRunner, latest_checkpoint
from internvl_dense.openmmlab.strict_load import checkpoint_file
from internvl_dense.openmmlab.summary import describe_run, first_line
from internvl_dense.openmmlab.tasks import DETECTION, task_of
from internvl_dense.safe_load import load_file


def train(args: Namespace) -> None:
    """Checks config and data, then trains.

    Args:
        args: Of the train command.

    Raises:
        UserError: Anything wrong with the config, the data or the checkpoint to start from, before any work.
    """
    config = load_config(args)
    _choose_start(config, args)
    _begin(config)
    _check(config, ('train', 'val'), args.check_data)
    if planned_processes(config.launcher)[0] == 0:
        print(describe_run(config), flush=True)
    if not args.dry_run:
        build_runner(config).train()


def _begin(config: Config) -> None:
    """The first line of the first process: where the weights come from, and by which numerics the run goes."""
    if planned_processes(config.launcher)[0] == 0:
        logs.to_terminal()
        print(first_line(config), flush=True)


def _choose_start(config: Config, args: Namespace) -> None:
    """Sets `resume` and `load_from`, and looks into the file that they name.

    `--resume` without a path continues the newest checkpoint of the work directory; the first time there is none, and
    the run starts from what `--load-from` or the config says.
    """
    if args.resume and args.resume != 'auto' and args.load_from:
        raise UserError(f'--resume {args.resume} and --load-from {args.load_from}: a run starts from one of them')
    config.load_from = args.load_from or config.get('load_from')
    if config.load_from:
        config.load_from = checkpoint_file(config.load_from)
    config.reset_head = list(args.reset_head or config.get('reset_head') or ())
    if config.reset_head and not config.load_from:
        raise UserError(f'--reset-head {" ".join(config.reset_head)} belongs to --load-from: without it every head '
                        'starts afresh')
    found = latest_checkpoint(config.work_dir) if args.resume == 'auto' else args.resume
    if found:
        config.resume, config.load_from, config.reset_head = found, None, []
        checkpoint_meta.require_run_state(load_file(found), found)
        _check_classes(config, 'train', found)
    elif config.load_from and not config.reset_head:
        _check_classes(config, 'train', config.load_from)


def _check(config: Config, splits: tuple[str, ...], check_data: int | None) -> None:
    """Reads the labels in the first process only; each process looks at the config and at file names."""
    rank, _ = planned_processes(config.launcher)
    found = check_run(config, splits=splits, check_data=check_data if rank == 0 else 0)
    if found and rank == 0:
        print(format_problems('worth a look', found), file=sys.stderr, flush=True)


def _check_classes(config: Config, split: str, path: str) -> None:
    saved = checkpoint_meta.classes_of(load_file(path), path)
    if saved:
        heads = [name for name in HEADS if config.model.get(name)] if config.get('load_from') == path else []
        checkpoint_meta.check_classes(
            saved, config_label_policy(config, split).classes, path, heads if split == 'train' else ())


def test(args: Namespace) -> dict[str, float]:
    """Tests a checkpoint with the config's test split and returns the metrics in percent.

    Raises:
        UserError: The checkpoint does not fit the config, or was trained on other classes.
    """
    config = load_config(args)
    if args.show_dir:
        _draw_into(config, args.show_dir)
    if args.out:
        _write_into(config, args.out)
    if args.tta and config.get('tta_pipeline') is None:
        raise UserError(f'--tta: {config.filename} has no tta_pipeline; name one as configs/_base_/datasets do')
    return test_config(config, args.checkpoint, args.check_data, tta=args.tta)


def test_config(config: Config, checkpoint: str, check_data: int | None, tta: bool = False) -> dict[str, float]:
    """Tests a checkpoint with a loaded config and returns the metrics in percent.

    Args:
        config: The resolved config.
        checkpoint: File of a whole model.
        check_data: As for `config_checks.check_run`.
        tta: With multi-scale and flip.

    Raises:
        UserError: The checkpoint does not fit the config, or was trained on other classes.
    """
    checkpoint = checkpoint_file(checkpoint)
    config.load_from, config.resume = checkpoint, False
    _begin(config)
    _check_classes(config, 'test', checkpoint)
    _check(config, ('test',), check_data)
    if tta:
        _augment(config)
    metrics: dict[str, float] = build_runner(config).test()
    return metrics


def _draw_into(config: Config, folder: str) -> None:
    if task_of(config) == DETECTION:
        # A relative path mmdet would join to itself once more with each image.
        config.default_hooks.visualization = {
            'type': 'DetVisualizationHook', 'draw': True, 'test_out_dir': os.path.abspath(folder)}
    else:
        config.default_hooks.visualization = {'type': 'SegVisualizationHook', 'draw': True, 'interval': 1}
        config.visualizer.save_dir = folder


def _write_into(config: Config, folder: str) -> None:
    evaluator = config.test_evaluator
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
        if task_of(config) == DETECTION:
            metric.outfile_prefix = os.path.join(folder, 'results')
        else:
            metric.output_dir = folder


def _augment(config: Config) -> None:
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    config.model = {'type': 'SegTTAModel', **config.get('tta_model', {}), 'module': config.model}


def build_runner(config: Config) -> DenseRunner:
    """The runner that the config names, of this project's kind."""
    config.setdefault('runner_type', 'DenseRunner')
    runner = RUNNERS.build(config)
    if not isinstance(runner, DenseRunner):
        raise UserError(f"runner_type={config.get('runner_type')!r}: these tools run 'DenseRunner'")
    return runner


def build_model_on_meta(config: Config) -> Any:
    """The model of a config without memory: shapes, names and counts only."""
    import torch

    init_default_scope(config.get('default_scope', 'mmseg'))
    with torch.device('meta'):
        return MODELS.build(config.model)
