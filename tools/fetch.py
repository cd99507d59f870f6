"""Wrapper for `internvl_dense.commands.fetch`."""

from internvl_dense.commands.fetch import main
from internvl_dense.errors import run

if __name__ == '__main__':
    raise SystemExit(run(main))
