"""Test a published model with the published numerics, and set the result against its published figure.

CELL is a published model (internvl-dense fetch --list), or any config that states its figure as
published = dict(mIoU=..., images=..., source=...). The exit code is 0 within 0.1 points of mIoU, else 1; the row for
the table of results goes to reproduced.json in the work directory.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from internvl_dense.commands import _options


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog='reproduce', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('cell', metavar='CELL', help='published model, or config with a published figure')
    parser.add_argument('--weights', metavar='FILE',
                        help='its checkpoint (default: looked for in $INTERNVL_DENSE_WEIGHTS and ./pretrained)')
    parser.add_argument('--data-root', metavar='DIR', help='folder of the data set (default: that of the config)')
    parser.add_argument('--out', metavar='FILE', help='JSON file for the row (default: WORK_DIR/reproduced.json)')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
                        help='overrides that decide no result, as in test_dataloader.num_workers=8')
    _options.add_launch(parser)
    _options.add_check_data(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns 0 if the figure was reproduced, else 1."""
    args = build_parser().parse_args(argv)
    _options.set_local_rank(args)
    from internvl_dense.openmmlab.reproduce import reproduce

    return 0 if reproduce(args).passed else 1
