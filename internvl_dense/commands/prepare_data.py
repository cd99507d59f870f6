"""Make a benchmark data folder from archives or folders you have. Downloads nothing.

SRC is an archive as published (zip, tar, tar.gz), a folder with archives, or a folder with what was in them; several
may be given. What each data set needs, and from which page, is told where it is missing and in docs/benchmark_data.md.

Numbers and names are checked before anything is written. Files from a folder on the same disk are hard-linked, others
copied; label maps of COCO-Stuff are converted. Nothing that was there before is changed. A run that was stopped goes
on where it was, and a second run over a finished folder does nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

# As in internvl_dense.data.prepare.run, which is not imported for help.
DATA_SETS = ('ade20k', 'coco_stuff164k', 'coco')


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog='prepare_data', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data_set', metavar='DATA_SET', choices=DATA_SETS, help=', '.join(DATA_SETS))
    parser.add_argument('sources', metavar='SRC', nargs='+', type=Path, help='archive or folder')
    parser.add_argument('--out', metavar='DIR', type=Path, required=True,
                        help='gets the data set as a folder of its own: ADEChallengeData2016 (configs expect it in '
                             'data/ade), coco_stuff164k or coco (in data)')
    parser.add_argument('--partial', action='store_true',
                        help='make a subset of what there is, for trying out; never for a score')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code.

    Raises:
        UserError: Anything that is missing, damaged, unsafe or in the way; all problems of one kind at once.
    """
    args = build_parser().parse_args(argv)
    from internvl_dense.commands._progress import Progress
    from internvl_dense.data.prepare.run import layout_named, prepare

    prepare(layout_named(args.data_set), args.sources, args.out, partial=args.partial, say=print, progress=Progress)
    return 0
