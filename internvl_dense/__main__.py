"""`python -m internvl_dense` is the console script."""

from internvl_dense.cli import console

console()
