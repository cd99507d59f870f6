"""Wrapper for `internvl_dense.commands.list_models`."""

from internvl_dense.commands.list_models import main
from internvl_dense.errors import run

if __name__ == '__main__':
    raise SystemExit(run(main))
