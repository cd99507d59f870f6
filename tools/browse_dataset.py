"""Wrapper for `internvl_dense.commands.browse_dataset`."""

from internvl_dense.commands.browse_dataset import main
from internvl_dense.errors import run

if __name__ == '__main__':
    raise SystemExit(run(main))
