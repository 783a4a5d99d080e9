#!/usr/bin/env bash
# Commands, one a line on standard input, given to a queue of GPUs or machines.
#
#   python -m scalevae_jax.reproduce table1 --scale paper --data DIR --list | launch/sweep.sh --gpus 0,1,2,3
#   launch/sweep.sh [--dry-run] [--gpus 0,1] [--hosts a,b] [--folder DIR] [--logs DIR] < rows
#
# --gpus: of this machine, or of each host: so many rows at once. --hosts: reached by ssh without a password.
# --folder (the present one): where a host starts the row. --logs (sweep): a log a row, and what is done.
# A row that is done is skipped, so that the same command goes on. The exit code is 1 where a row failed or is left.
set -euo pipefail
source "$(dirname "$0")/common.sh"
dry=false gpus='' hosts='' folder=$PWD logs=sweep
while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) help ;;
    --dry-run) dry=true ;;
    --gpus | --hosts | --folder | --logs)
      [[ -n "${2:-}" ]] || refuse "$1 wants a value"
      declare "${1#--}=$2"
      shift
      ;;
    *) refuse "no option $1" ;;
  esac
  shift
done
[[ -n "$gpus$hosts" ]] || refuse "where to? --gpus 0,1 or --hosts a,b"
[[ ! -t 0 ]] || refuse "rows are wanted on standard input, a line of commands each"
IFS=, read -ra gpus <<< "${gpus:-any}"
IFS=, read -ra hosts <<< "${hosts:-here}"
mapfile -t rows < <(grep --extended-regexp --invert-match '^\s*(#|$)' | awk '!seen[$0]++')
[[ ${#rows[@]} -gt 0 ]] || refuse "no rows on standard input"

log() { # of a row, named by its workdir and a digest of the line
  local name=row
  [[ $1 =~ --workdir[=\ ]([^\ ]+) ]] && name=$(basename "${BASH_REMATCH[1]}")
  echo "$logs/$name-$(sha256sum <<< "$1" | cut -c 1-8)"
}

place() { # HOST GPU ROW: the words that run the row there, in `line`
  local row=$3
  [[ $2 == any ]] || row="export CUDA_VISIBLE_DEVICES=$2; $row"
  if [[ $1 == here ]]; then
    line=(bash -c "$row")
  else
    line=(ssh -n -o BatchMode=yes "$1" "cd $(quoted "$folder") || exit; $row")
  fi
}

serve() { # HOST GPU: rows that nobody has, until there are none
  local host=$1 gpu=$2 row code
  trap 'row=$(jobs -p); [[ -z $row ]] || { kill -TERM -- "-$row"; wait "$row"; }; exit 143' INT TERM
  set -m # a row is a group of processes, so that all of it can be stopped
  for row in "${left[@]}"; do
    mkdir "$taken/$(basename "$(log "$row")")" 2> /dev/null || continue
    place "$host" "$gpu" "$row"
    echo "start $(log "$row") on $host, GPU $gpu"
    "${line[@]}" > "$(log "$row").log" 2>&1 < /dev/null &
    code=0
    wait "$!" || code=$?
    if [[ $code -eq 0 ]]; then
      touch "$(log "$row").done"
      echo "done $(log "$row")"
    else
      echo "failed $(log "$row") with exit code $code: $(tail -n 1 "$(log "$row").log")"
    fi
    [[ $host == here || $code -ne 255 ]] || { echo "host $host can not be reached; it gets no more rows"; return; }
  done
}

left=()
for row in "${rows[@]}"; do
  [[ -e "$(log "$row").done" ]] || left+=("$row")
done
echo "${#rows[@]} rows, $((${#rows[@]} - ${#left[@]})) done before; $((${#hosts[@]} * ${#gpus[@]})) at once; logs in $logs/"
if $dry; then
  for i in "${!left[@]}"; do
    slot=$((i % (${#hosts[@]} * ${#gpus[@]})))
    place "${hosts[slot % ${#hosts[@]}]}" "${gpus[slot / ${#hosts[@]}]}" "${left[i]}"
    quoted "${line[@]}"
  done
  exit 0
fi

mkdir -p "$logs"
exec 9> "$logs/lock"
flock --nonblock 9 || refuse "another sweep has $logs; wait for it, or give another --logs"
taken=$(mktemp -d)
trap 'kill -TERM $(jobs -p) 2> /dev/null; wait; rm -r "$taken"; echo "stopped; the same command goes on"; exit 143' INT TERM
for gpu in "${gpus[@]}"; do
  for host in "${hosts[@]}"; do
    serve "$host" "$gpu" 9>&- &
  done
done
wait
rm -r "$taken"
lost=0
for row in "${left[@]}"; do
  [[ -e "$(log "$row").done" ]] || { lost=$((lost + 1)) && echo "not done: $row (log: $(log "$row").log)"; }
done
echo "$((${#rows[@]} - lost)) of ${#rows[@]} rows done"
[[ $lost -eq 0 ]]
