"""Draw the images of a few-shot run: a seeded share of a training set, as a list for `ann_file`.

FILE holds one name a line, relative to IMAGE_FOLDER and without suffix; seed and counts go to the .json beside it. The
same images and seed give the same list on every machine, and the list of 1/16 is the beginning of that of 1/8. In a
config, train_dataloader.dataset.ann_file names the list, relative to data_root.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog='few_shot_list', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', metavar='IMAGE_FOLDER', type=Path, help='training images, with all folders below')
    parser.add_argument('denominator', metavar='DENOMINATOR', type=int, help='16 keeps 1/16 of the images')
    parser.add_argument('--seed', type=int, default=0, help='of the draw (default: 0)')
    parser.add_argument('--out', metavar='FILE', type=Path, required=True, help='list to write, as in 1of16_seed0.txt')
    parser.add_argument('--suffix', default='.jpg', help='ending of the images (default: .jpg)')
    parser.add_argument('--force', action='store_true', help='replace FILE if it holds other names')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code.

    Raises:
        UserError: No images, too few of them, or a FILE with other names.
    """
    args = build_parser().parse_args(argv)
    from fractions import Fraction

    from internvl_dense.data.few_shot import few_shot_names, record_path, write_list
    from internvl_dense.data.file_pairs import find_files
    from internvl_dense.errors import UserError

    names = list(find_files(args.images, args.suffix))
    if not names:
        raise UserError(f'{args.images}: no file below it ends in {args.suffix}; --suffix names another ending')
    if not 1 <= args.denominator <= len(names):
        raise UserError(f'DENOMINATOR {args.denominator}: must be from 1 to {len(names)}, the number of images')
    kept = few_shot_names(names, Fraction(1, args.denominator), seed=args.seed)
    _check_place(args.out, record_path(args.out), kept, args.force)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_list(args.out, kept, seed=args.seed, total=len(names))
    print(f'{args.out}: {len(kept)} of {len(names)} images, seed {args.seed}; counts in {record_path(args.out)}')
    return 0


def _check_place(path: Path, record: Path, names: Sequence[str], force: bool) -> None:
    from internvl_dense.errors import UserError

    if path == record:
        raise UserError(f'{path}: the counts go to a .json file of the same name; end the list in .txt')
    if path.exists() and not force and path.read_text(encoding='utf-8').split('\n')[:-1] != list(names):
        raise UserError(f'{path} exists and holds other names; choose another FILE, or replace it with --force')
