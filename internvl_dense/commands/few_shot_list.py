"""Write a seeded list of 1/N of the images of a folder, for few-shot training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(prog='few_shot_list', description=__doc__)
    parser.add_argument('folder', type=Path, help='folder of training images')
    parser.add_argument('denominator', type=int, help='16 keeps 1/16 of the images')
    parser.add_argument('--seed', type=int, default=0, help='every run with this seed sees the same images')
    parser.add_argument('--suffix', default='.jpg', help='ending of image files')
    parser.add_argument('--out', type=Path, required=True, help='list to write; a data set takes it as ann_file')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = build_parser().parse_args(argv)
    from internvl_dense.data.few_shot import few_shot_names, write_list
    from internvl_dense.data.file_pairs import find_files
    from internvl_dense.errors import UserError

    names = sorted(find_files(args.folder, (args.suffix,)))
    if not names:
        raise UserError(f'no files *{args.suffix} in {args.folder}; --suffix names another ending')
    if not 1 <= args.denominator <= len(names):
        raise UserError(f'denominator {args.denominator}: must be from 1 to {len(names)}, the number of images')
    chosen = few_shot_names(names, f'1/{args.denominator}', seed=args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_list(args.out, chosen, seed=args.seed, total=len(names))
    print(f'{args.out}: {len(chosen)} of {len(names)} images, seed {args.seed}')
    return 0
