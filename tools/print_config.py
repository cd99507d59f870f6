"""Wrapper for `internvl_dense.commands.print_config`."""

from internvl_dense.commands.print_config import main
from internvl_dense.errors import run

if __name__ == '__main__':
    raise SystemExit(run(main))
