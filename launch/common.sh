# shellcheck shell=bash
# What the scripts here share: --help is the comment at a script's top, a wrong argument is one line and exit code 2,
# and with dry=true a command is printed instead of run.

help() {
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
  exit 0
}

refuse() {
  echo "error: $1 (see $0 --help)" >&2
  exit 2
}

quoted() { # the words as a shell would read them
  local word line=
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  echo "${line# }"
}

run() {
  if "${dry:?}"; then quoted "$@"; else "$@"; fi
}
