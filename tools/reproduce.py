"""Wrapper for `internvl_dense.commands.reproduce`."""

from internvl_dense.commands.reproduce import main
from internvl_dense.errors import run

if __name__ == '__main__':
    raise SystemExit(run(main))
