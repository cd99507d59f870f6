"""Wrapper for `internvl_dense.commands.convert_checkpoint`."""

from internvl_dense.commands.convert_checkpoint import main
from internvl_dense.errors import run

if __name__ == '__main__':
    raise SystemExit(run(main))
