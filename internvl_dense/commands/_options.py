"""Options that several commands share, spelled once."""

from __future__ import annotations

import argparse

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def add_config(parser: argparse.ArgumentParser) -> None:
    """The config and its overrides."""
    parser.add_argument('config', help='config file, or its path below configs/')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
                        help='overrides, as in model.backbone.frozen=True train_dataloader.batch_size=4')


def add_model(parser: argparse.ArgumentParser) -> None:
    """What the model starts from, how it counts, and where the data are."""
    parser.add_argument('--weights', metavar='PATH|published|random',
                        help='weights of the trunk, in place of those that the config names')
    parser.add_argument('--numerics', metavar='NAME',
                        help='published: every choice that a published figure rests on; fast: the right defaults')
    parser.add_argument('--data-root', metavar='DIR', help='folder of the data set, in place of that of the config')


def add_launch(parser: argparse.ArgumentParser) -> None:
    """Where a run writes and how it is started."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/CONFIG)')
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='who starts the processes')
    parser.add_argument('--strategy', metavar='NAME',
                        help='single or ddp: how the model is spread (default: by the launcher)')
    # Older launchers pass it; torchrun sets LOCAL_RANK in the environment instead.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=None, help=argparse.SUPPRESS)


def add_check_data(parser: argparse.ArgumentParser) -> None:
    """How many label files are read before the run."""
    parser.add_argument('--check-data', type=int, default=None, metavar='N',
                        help='read at most N label files of each split before the run (default: all; 0: none)')


def set_local_rank(args: argparse.Namespace) -> None:
    """Hands a rank given as an option on to the environment, where everything else looks for it."""
    import os

    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
