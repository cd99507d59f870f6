"""Draw what a model is trained or tested on: contact sheets of images and their labels, after the pipeline."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_dense.commands import _options

if TYPE_CHECKING:
    from internvl_dense.data.label_policy import LabelPolicy
    from internvl_dense.data.label_sheets import LabelledImage


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(prog='browse_dataset', description=__doc__)
    _options.add_config(parser)
    _options.add_model(parser)
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train', help='default: train')
    parser.add_argument('--out', metavar='DIR', help='folder for the sheets (default: work_dirs/CONFIG/browse)')
    parser.add_argument('--number', type=int, default=24, metavar='N',
                        help='samples to draw, evenly spread over the split (default: 24)')
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument('--raw', action='store_true', help='as the files are')
    mode.add_argument('--augmented', action='store_true', help='as the model gets them (default)')
    parser.add_argument('--seed', type=int, default=0, help='of the random augmentation (default: 0)')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns 1 if samples could not be read.

    Raises:
        UserError: The split cannot be listed, or a label holds ids that are no class.
    """
    args = build_parser().parse_args(argv)
    from internvl_dense.errors import UserError
    from internvl_dense.openmmlab.browsing import Browser
    from internvl_dense.openmmlab.configs import load_config

    if args.number < 1:
        raise UserError(f'--number {args.number}: at least 1')
    config = load_config(args)
    browser = Browser(config, args.split, args.raw, args.seed)
    samples = list(browser.samples(args.number))
    out = Path(args.out or Path(config.work_dir) / 'browse')
    _write_sheets(samples, browser.policy, out, f'{args.split}_{"raw" if args.raw else "augmented"}')
    for path, reason in browser.faults.items():
        print(f'cannot be read: {path}: {reason}')
    return 1 if browser.faults else 0


def _write_sheets(samples: Sequence[LabelledImage], policy: LabelPolicy, out: Path, stem: str) -> None:
    from PIL import Image

    from internvl_dense.data.label_sheets import SAMPLES, label_sheet

    out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(samples), SAMPLES):
        group = samples[start : start + SAMPLES]
        path = out / f'{stem}_{start // SAMPLES + 1:02d}.png'
        Image.fromarray(label_sheet(group, policy)).save(path)
        print(f'{path}: {", ".join(sample.name for sample in group)}')
