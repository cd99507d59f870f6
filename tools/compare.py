"""Wrapper for `internvl_dense.commands.compare`."""

from internvl_dense.commands.compare import main
from internvl_dense.errors import run

if __name__ == '__main__':
    raise SystemExit(run(main))
