#!/usr/bin/env bash
# What dist_train.sh and dist_test.sh share: _torchrun.sh GPUS TOOL [arguments of TOOL].
set -euo pipefail

gpus=$1
tool=$2
shift 2
if [[ ! $gpus =~ ^([1-9][0-9]*|auto|gpu|cpu)$ ]]; then
    echo "error: GPUS is '$gpus'; it must be the number of processes on this machine" >&2
    exit 2
fi
tools=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
if [[ ${NNODES:-1} == 1 && -z ${PORT:-} && -z ${MASTER_ADDR:-} ]]; then
    meeting=(--standalone)
else
    meeting=(--nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}"
        --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}")
fi
# A checkout works without being installed.
export PYTHONPATH="${tools%/*}${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m torch.distributed.run "${meeting[@]}" --nproc-per-node "$gpus" \
    "$tools/$tool" "$@" --launcher pytorch
