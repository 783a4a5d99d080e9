#!/usr/bin/env bash
# N processes of one run on this machine: launch/local.sh [--dry-run] PROCESSES <arguments of train>
# DEVICES (default 1): virtual CPU devices a process. PYTHON: the interpreter. COMMAND (default train): train or evaluate.
set -euo pipefail
dry=false
if [[ "${1:-}" == --dry-run ]]; then dry=true; shift; fi
if [[ ! "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
  sed -n 2,3p "$0" | cut -c 3- >&2
  exit 2
fi
processes=$1
shift
python=${PYTHON:-python}
devices=${DEVICES:-1}
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
export NPROC=$((2 * processes * devices))
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"
pids=()
for ((i = 0; i < processes; i++)); do
  line=("$python" -m "scalevae_jax.${COMMAND:-train}" --distributed "--coordinator=127.0.0.1:$port"
    "--num_processes=$processes" "--process_id=$i" "$@")
  if $dry; then
    echo "NPROC=$NPROC XLA_FLAGS='${XLA_FLAGS# }' ${line[*]}"
  else
    "${line[@]}" &
    pids+=($!)
  fi
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM
code=0
for pid in "${pids[@]}"; do
  wait "$pid" || { last=$?; [[ $code -ne 0 ]] || code=$last; }
done
exit "$code"
