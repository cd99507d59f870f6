"""Compare loss, learning rate and mIoU of a run with a published training log, or with another run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_dense.errors import UserError, problems

if TYPE_CHECKING:
    from internvl_dense.evaluation.comparison_sources import Source

EPILOG = """The reference is interpolated linearly between two of its points and never extrapolated: iterations of RUN
before its first or after its last point are listed as outside the curve. Losses are compared as means over the same
iterations of both; a mean counts once its window lies within the common range, or once at the end of a shorter range.
Learning rates and mIoU are compared where both were logged. Exit code: 0 if all that is comparable is inside, 1 if
something is outside its tolerance, 2 for wrong input."""
FOLDER = 'comparison'
FILES = ('comparison.json', 'comparison.png')


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    from internvl_dense.evaluation.comparison import Rules

    parser = argparse.ArgumentParser(prog='compare', description=__doc__, epilog=EPILOG)
    parser.add_argument('run', metavar='RUN', help='work directory of a run, or its scalars.json')
    parser.add_argument('reference', metavar='REFERENCE',
                        help='published:CELL (a published model, as in '
                             'published:linear_probing_internvit_6b_224px_ade20k), published:PATH of a training log of '
                             'mmcv 1.x, or another run')
    parser.add_argument('--out', metavar='DIR', help=f'folder for {" and ".join(FILES)} (default: RUN/{FOLDER})')
    parser.add_argument('--loss-tolerance', type=float, default=Rules.loss, metavar='SHARE',
                        help='largest deviation of the ratio of mean losses from 1 (default: %(default)s)')
    parser.add_argument('--lr-tolerance', type=float, default=Rules.lr, metavar='SHARE',
                        help='largest deviation of the ratio of learning rates from 1 (default: %(default)s)')
    parser.add_argument('--miou-tolerance', type=float, default=Rules.miou, metavar='POINTS',
                        help='largest difference of mIoU in percentage points (default: %(default)s)')
    parser.add_argument('--window', type=int, default=Rules.window, metavar='ITERATIONS',
                        help='length of the mean of losses (default: %(default)s)')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns 0 if all that is comparable is inside its tolerance, else 1.

    Raises:
        UserError: A source cannot be read, an option is wrong, or the two have nothing in common.
    """
    args = build_parser().parse_args(argv)
    from internvl_dense.evaluation.comparison import Rules, compare_curves
    from internvl_dense.evaluation.comparison_plot import draw_comparison
    from internvl_dense.evaluation.comparison_report import as_data, table, verdicts

    rules = Rules(args.loss_tolerance, args.lr_tolerance, args.miou_tolerance, args.window)
    folder = _folder(args.run, args.out)
    run, reference = _read(args.run, args.reference)
    quantities = compare_curves(run.curves, reference.curves, rules)
    print(f'{_describe("run", run)}\n{_describe("reference", reference)}\n\n{table(quantities, rules)}\n\n'
          f'{verdicts(quantities, rules)}')
    folder.mkdir(parents=True, exist_ok=True)
    data, picture = (folder / name for name in FILES)
    text = json.dumps(as_data(run, reference, quantities, rules), indent=1, allow_nan=False)
    data.write_text(text + '\n', encoding='utf-8')
    draw_comparison(run, reference, quantities, picture)
    print(f'\nwrote {data} and {picture}')
    return 1 if any(quantity.inside is False for quantity in quantities) else 0


def _folder(run: str, out: str | None) -> Path:
    """Where to write.

    Raises:
        UserError: It is a file, or the run is none of ours, beside which nothing should be written.
    """
    from internvl_dense.evaluation.comparison_sources import PUBLISHED

    if out is None and run.startswith(PUBLISHED):
        raise UserError(f'{run} has no work directory to write into: name a folder with --out')
    path = Path(run)
    folder = Path(out) if out else (path.parent if path.is_file() else path) / FOLDER
    if folder.exists() and not folder.is_dir():
        raise UserError(f'--out {folder} is a file; name a folder')
    return folder


def _read(*names: str) -> list[Source]:
    """The sources, or what is wrong with all of them."""
    from internvl_dense.evaluation.comparison_sources import read_source

    sources, wrong = [], []
    for name in names:
        try:
            sources.append(read_source(name))
        except UserError as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise UserError(problems('curves to compare', map(str, wrong)))
    return sources


def _describe(role: str, source: Source) -> str:
    files = [f'  {path} (sha256 {checksum[:12]}...)' for path, checksum in source.files.items()]
    return '\n'.join([f'{role}: {source.name}', *files, *(f'  {note}' for note in source.notes)])
