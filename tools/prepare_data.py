"""Wrapper for `internvl_dense.commands.prepare_data`."""

from internvl_dense.commands.prepare_data import main
from internvl_dense.errors import run

if __name__ == '__main__':
    raise SystemExit(run(main))
