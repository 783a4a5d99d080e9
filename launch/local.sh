#!/usr/bin/env bash
# N processes of one run on this machine.
#
#   launch/local.sh [--dry-run] PROCESSES <arguments of train>
#
# DEVICES (1): virtual CPU devices a process. PYTHON (of the active environment, or of .venv): the interpreter.
# COMMAND (train): train or evaluate. PORT (a free one): of process 0. Exits with the first exit code that is not 0.
set -euo pipefail
source "$(dirname "$0")/common.sh"
dry=false
case "${1:-}" in
  -h | --help) help ;;
  --dry-run) dry=true && shift ;;
esac
processes=${1:-}
[[ $processes =~ ^[1-9][0-9]*$ ]] || refuse "expected the number of PROCESSES, 1 or more, not '$processes'"
shift
[[ $# -gt 0 ]] || refuse "arguments of train are missing, such as --config configs/smoke.py"
python=${PYTHON:-${VIRTUAL_ENV:-.venv}/bin/python}
devices=${DEVICES:-1}
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
settings=("NPROC=$((2 * processes * devices))"
  "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices")
pids=()
set -m # Ctrl-C reaches this script alone, which sends each process one SIGTERM
trap 'kill -TERM $(jobs -p) 2> /dev/null || true' INT TERM
for ((i = 0; i < processes; i++)); do
  line=(env "${settings[@]}" "$python" -m "scalevae_jax.${COMMAND:-train}" --distributed
    "--coordinator=127.0.0.1:$port" "--num_processes=$processes" "--process_id=$i" "$@")
  if $dry; then
    quoted "${line[@]}"
  else
    "${line[@]}" &
    pids+=($!)
  fi
done
code=0
for pid in "${pids[@]}"; do
  wait "$pid" || { last=$?; [[ $code -ne 0 ]] || code=$last; }
done
wait # a signal ends the waits above before the processes end
exit "$code"
