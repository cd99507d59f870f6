"""Print a config with its bases and overrides resolved."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from internvl_dense.commands import _options


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(prog='print_config', description=__doc__)
    _options.add_config(parser)
    _options.add_model(parser)
    parser.add_argument('--strategy', metavar='NAME', help='also lay this strategy over the config')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = build_parser().parse_args(argv)
    from internvl_dense.openmmlab.configs import load_config

    print(load_config(args).pretty_text)
    return 0
