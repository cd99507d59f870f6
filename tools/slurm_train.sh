#!/usr/bin/env bash
# Trains as a Slurm job with one task for each GPU.
set -euo pipefail

if (($# < 3)); then
    cat >&2 <<'USAGE'
usage: slurm_train.sh PARTITION JOB CONFIG [arguments of train.py]
  environment: GPUS (8 in all), GPUS_PER_NODE (8, or GPUS if that is less), CPUS_PER_TASK (5), PORT (any),
  SRUN_ARGS (more options of srun, separated by spaces), PYTHON (interpreter, default: python)
USAGE
    exit 2
fi
partition=$1
job=$2
shift 2
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/_srun.sh" "$partition" "$job" train.py "$@"
