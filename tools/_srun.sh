#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh share: _srun.sh PARTITION JOB TOOL [arguments of TOOL].
set -euo pipefail

partition=$1
job=$2
tool=$3
shift 3
tools=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
read -r -a more <<<"${SRUN_ARGS:-}"
# A checkout works without being installed.
export PYTHONPATH="${tools%/*}${PYTHONPATH:+:$PYTHONPATH}"
# Jobs that share a machine must not meet at one port.
export MASTER_PORT="${PORT:-$((20000 + RANDOM % 12000))}"
exec srun --partition "$partition" --job-name "$job" --gres "gpu:$per_node" --ntasks "$gpus" \
    --ntasks-per-node "$per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
    ${more[@]+"${more[@]}"} "${PYTHON:-python}" -u "$tools/$tool" "$@" --launcher slurm
