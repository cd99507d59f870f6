"""`python -m internvl_dense` is the console script."""

from internvl_dense.cli import console

if __name__ == '__main__':  # worker processes that are spawned import this file again
    console()
