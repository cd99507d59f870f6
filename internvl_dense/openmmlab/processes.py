"""How many processes a run has, known before they have found each other."""

from __future__ import annotations

import os

from internvl_dense.errors import UserError

# Names under which each launcher tells a process its number and how many there are.
RANK_NAMES = {'pytorch': ('RANK', 'WORLD_SIZE'), 'slurm': ('SLURM_PROCID', 'SLURM_NTASKS'),
              'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE')}
TORCHRUN = 'TORCHELASTIC_RUN_ID'  # set in every process that torchrun starts
COMMAND = 'torchrun --nproc_per_node N tools/train.py CONFIG --launcher pytorch'


def planned_processes(launcher: str) -> tuple[int, int]:
    """Number of this process and of all processes that the launcher started.

    Args:
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        UserError: The launcher did not start this process, or another one did and is not named.
    """
    if launcher == 'none':
        started = int(os.environ.get('WORLD_SIZE', '1'))
        if started > 1 and TORCHRUN in os.environ:
            raise UserError(f'torchrun started {started} processes, and without --launcher pytorch each of them would '
                            'be a run of its own in the same folder: add --launcher pytorch')
        return 0, 1
    missing = [name for name in RANK_NAMES[launcher] if name not in os.environ]
    if missing:
        raise UserError(f'--launcher {launcher}: {" and ".join(missing)} not set, so {launcher} did not start this '
                        f'process. Start it with the launcher, as in {COMMAND}, or leave --launcher out.')
    rank, count = (int(os.environ[name]) for name in RANK_NAMES[launcher])
    return rank, count
