#!/usr/bin/env bash
# A run on a TPU pod by gcloud, for TPU VM generations before 7x; later ones are available through GKE.
#
#   launch/tpu_pod.sh [options] create TYPE VERSION          such as v6e-32 v2-alpha-tpuv6e
#   launch/tpu_pod.sh [options] install                      this commit, on all workers
#   launch/tpu_pod.sh [options] run <arguments of train>     on all workers, until it ends
#   launch/tpu_pod.sh [options] fetch WORKDIR FOLDER         from a bucket (gs://...), or from worker 0
#   launch/tpu_pod.sh [options] delete
#
# options: --name NAME (scalevae), --zone ZONE and --project PROJECT (else as gcloud is configured),
#   --spot (create: cheaper, and may be taken away), --dry-run (print what would be done)
# VERSION: v2-alpha-tpuv6e for v6e, v2-alpha-tpuv5 for v5p, v2-alpha-tpuv5-lite for v5litepod, tpu-ubuntu2204-base for v4.
# JAX_COMPILATION_CACHE_DIR, where it is set here, is set there: a folder or bucket that all workers see.
# `run` ends when this terminal is closed; the same command resumes it.
set -euo pipefail
source "$(dirname "$0")/common.sh"
dry=false name=scalevae where=() spot=()
while [[ "${1:-}" == -* ]]; do
  case "$1" in
    -h | --help) help ;;
    --dry-run) dry=true ;;
    --spot) spot=(--spot) ;;
    --name | --zone | --project)
      [[ -n "${2:-}" ]] || refuse "expected a value after $1"
      if [[ $1 == --name ]]; then name=$2; else where+=("$1=$2"); fi
      shift
      ;;
    *) refuse "no option $1" ;;
  esac
  shift
done
action=${1:-}
[[ $# -eq 0 ]] || shift

tpu() { # VERB ARGUMENTS, of gcloud compute tpus tpu-vm
  run gcloud compute tpus tpu-vm "$1" "${@:2}" "${where[@]}"
}

on_all() {
  tpu ssh "$name" --worker=all "--command=$1"
}

expect() { # NUMBER NAMES ARGUMENTS
  [[ $(($# - 2)) -eq $1 ]] || refuse "$action: expected $2"
}

case "$action" in
  create)
    expect 2 "TYPE and VERSION" "$@"
    case "$1" in v7* | tpu7*) refuse "this API has no $1; use launch/gke_jobset.yaml" ;; esac
    tpu create "$name" "--accelerator-type=$1" "--version=$2" "${spot[@]}"
    ;;
  install)
    expect 0 "no arguments" "$@"
    archive=scalevae_jax.tar.gz
    run git archive --prefix=scalevae_jax/ "--output=$archive" HEAD
    tpu scp "$archive" "$name:" --worker=all
    run rm "$archive"
    # the images have an old Python; uv installs a newer one
    on_all "tar -xzf $archive && cd scalevae_jax && PIP_BREAK_SYSTEM_PACKAGES=1 pip install --quiet --user uv \
&& export PATH=\$HOME/.local/bin:\$PATH && uv venv --quiet --clear --python 3.12 \
&& uv pip install --quiet -r requirements.lock 'jax[tpu]' && uv pip install --quiet --no-deps -e ."
    ;;
  run)
    [[ $# -gt 0 ]] || refuse "run: expected arguments of train, such as --config configs/yahoo.py --workdir /shared/yahoo"
    cache=${JAX_COMPILATION_CACHE_DIR:+JAX_COMPILATION_CACHE_DIR=$(quoted "$JAX_COMPILATION_CACHE_DIR") }
    on_all "cd scalevae_jax && $cache.venv/bin/python -m scalevae_jax.train --distributed $(quoted "$@")"
    ;;
  fetch)
    expect 2 "WORKDIR and FOLDER" "$@"
    case "$1" in
      gs://*) run gcloud storage cp "$1" "$2" --recursive ;;
      /*) tpu scp "$name:$1" "$2" --recurse --worker=0 ;;
      *) tpu scp "$name:scalevae_jax/$1" "$2" --recurse --worker=0 ;;
    esac
    ;;
  delete)
    expect 0 "no arguments" "$@"
    tpu delete "$name" --quiet
    ;;
  *) refuse "expected create, install, run, fetch or delete, not '$action'" ;;
esac
