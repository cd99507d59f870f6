"""Wrapper for `internvl_dense.commands.get_flops`."""

from internvl_dense.commands.get_flops import main
from internvl_dense.errors import run

if __name__ == '__main__':
    raise SystemExit(run(main))
