"""List the backbone variants: geometry, parameters, published weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

COLUMNS = ('name', 'width', 'depth', 'heads', 'patch', 'pixels', 'params', 'weights', 'licence')


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(prog='list_models', description=__doc__)
    parser.add_argument('pattern', nargs='?', default='*', help='shell-style pattern, as in internvit_6b_*')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = build_parser().parse_args(argv)
    from internvl_dense.backbones.create import list_backbones

    names = list_backbones(args.pattern)
    if not names:
        print(f'no variant matches {args.pattern!r}; all: {", ".join(list_backbones())}')
        return 1
    rows = [COLUMNS, *(_row(name) for name in names)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for name in names:
        note = _note(name)
        if note:
            print(f'{name}: {note}')
    return 0


def _row(name: str) -> tuple[str, ...]:
    from internvl_dense.backbones.create import create_backbone
    from internvl_dense.backbones.variants import VARIANTS

    spec = VARIANTS.get(name)
    count = sum(p.numel() for p in create_backbone(name, device='meta').parameters()) / 1e6
    weights, licence = ('none', '-') if spec.weights is None else (
        spec.weights.file or spec.weights.hf_repo, spec.weights.licence)
    return (name, str(spec.embed_dim), str(spec.depth), str(spec.num_heads), str(spec.patch_size),
            str(spec.image_size), f'{count:,.1f} M', weights, licence)


def _note(name: str) -> str:
    from internvl_dense.backbones.variants import VARIANTS

    weights = VARIANTS.get(name).weights
    return weights.note if weights else ''
