"""Wrapper for `internvl_dense.commands.few_shot_list`."""

from internvl_dense.commands.few_shot_list import main
from internvl_dense.errors import run

if __name__ == '__main__':
    raise SystemExit(run(main))
