"""Train a model from a config."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from internvl_dense.commands import _options


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(prog='train', description=__doc__)
    _options.add_config(parser)
    _options.add_model(parser)
    _options.add_launch(parser)
    parser.add_argument('--resume', nargs='?', const='auto', metavar='auto|PATH',
                        help='continue the newest checkpoint of the work dir, or this one')
    parser.add_argument('--load-from', metavar='PATH', help='start from the weights of this checkpoint')
    parser.add_argument('--reset-head', nargs='+', default=(), metavar='NAME',
                        help='with --load-from: heads whose layer of the classes starts afresh, for other classes')
    parser.add_argument('--amp', action='store_true', help='bf16 autocast (GPU or CPU)')
    parser.add_argument('--seed', type=int, help='seed of weights, data order and augmentation')
    parser.add_argument('--dry-run', action='store_true', help='check config and data, say what would run, and stop')
    _options.add_check_data(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = build_parser().parse_args(argv)
    _options.set_local_rank(args)
    from internvl_dense.openmmlab import launch

    launch.train(args)
    return 0
