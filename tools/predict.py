"""Wrapper for `internvl_dense.commands.predict`."""

from internvl_dense.commands.predict import main
from internvl_dense.errors import run

if __name__ == '__main__':
    raise SystemExit(run(main))
