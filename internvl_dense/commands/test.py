"""Test a checkpoint: the table of classes, mIoU, and metrics.json in the work dir."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from internvl_dense.commands import _options


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(prog='test', description=__doc__)
    _options.add_config(parser)
    _options.add_model(parser)
    parser.add_argument('checkpoint', help='checkpoint of a whole model')
    _options.add_launch(parser)
    parser.add_argument('--tta', action='store_true', help='multi-scale and flip')
    parser.add_argument('--out', metavar='DIR', help='also write predictions as index PNG files')
    parser.add_argument('--show-dir', metavar='DIR', help='also write images with prediction and truth')
    _options.add_check_data(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = build_parser().parse_args(argv)
    _options.set_local_rank(args)
    from internvl_dense.openmmlab import launch

    launch.test(args)
    return 0
