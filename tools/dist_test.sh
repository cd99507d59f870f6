#!/usr/bin/env bash
# Tests in several processes, one for each GPU; on a machine without GPUs the processes share the CPUs.
set -euo pipefail

if (($# < 3)); then
    cat >&2 <<'USAGE'
usage: dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py]
  GPUS is the number of processes on this machine. For several machines start it on each of them with
  NNODES (how many), NODE_RANK (0, 1, ...), MASTER_ADDR (machine 0) and PORT (default 29500) in the environment.
  On one machine a free port is found; set PORT to choose it. PYTHON names the interpreter (default: python).
USAGE
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
shift 3
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/_torchrun.sh" "$gpus" test.py "$config" "$checkpoint" "$@"
