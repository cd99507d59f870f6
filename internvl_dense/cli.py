"""`internvl-dense COMMAND ...`: every command by name, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from internvl_dense import __version__
from internvl_dense.errors import UserError, run
from internvl_dense.registry import unknown

# Command -> what it does, in the order in which a user meets them.
COMMANDS = {
    'demo': 'make sample data, train, test and draw: a few minutes on a CPU',
    'fetch': 'download published weights, once, on a machine with network',
    'prepare-data': 'unpack and convert ADE20K, COCO-Stuff 164k or COCO from the archives you have',
    'train': 'train a model from a config',
    'test': 'test a checkpoint: table of classes, mIoU, metrics.json',
    'reproduce': 'test a published model against its published figure',
    'compare': 'compare the curves of a run with a published log',
    'predict': 'segment images, folders or globs',
    'browse-dataset': 'draw what a config feeds to the model',
    'print-config': 'print a config with its bases and overrides resolved',
    'list-models': 'list the backbone variants',
    'get-flops': 'count the operations of a model',
    'convert-checkpoint': 'translate weights between layouts, or into plain data',
    'few-shot-list': 'write a seeded list of a share of the images',
}


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    rows = [f'  {name:<{width}}  {text}' for name, text in COMMANDS.items()]
    return '\n'.join([f'internvl-dense {__version__}', 'usage: internvl-dense COMMAND [ARGUMENTS], or COMMAND --help',
                      '', *rows])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns its exit code.

    Raises:
        UserError: There is no such command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ('-h', '--help'):
        print(usage())
        return 0
    if words[0] == '--version':
        print(__version__)
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise UserError(f'{unknown("command", name, COMMANDS)}\n\n{usage()}')
    command = importlib.import_module(f'internvl_dense.commands.{name.replace("-", "_")}')
    status: int = command.main(rest)
    return status


def console() -> None:
    """Console script: shows a user's mistake without a traceback."""
    raise SystemExit(run(main))


if __name__ == '__main__':
    console()
