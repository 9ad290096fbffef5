# SPDX-License-Identifier: Apache-2.0
# Sourced by setup, test and .ci/run. step TITLE COMMAND... runs COMMAND with its output in $log and shows one line:
# the title, while it runs the last line of its output, and at the end the seconds it took. A failure prints the end
# of that output and ends the script.

beat=
stop_beat() {
  [ -z "$beat" ] || kill "$beat" 2>/dev/null || true
  beat=
}
trap stop_beat EXIT

show_progress() {
  local title=$1 started=$SECONDS line
  local every=30
  [ ! -t 1 ] || every=1
  while sleep "$every" >/dev/null; do
    line=$(tail -c 500 "$log" | tr '\r' '\n' | tail -n 1 | cut -c 1-80)
    if [ -t 1 ]; then
      printf '\r\033[K%s ... %d s  %.60s' "$title" $((SECONDS - started)) "$line"
    else
      printf '\n      %d s: %s' $((SECONDS - started)) "$line"
    fi
  done
}

step() {
  local title=$1 started=$SECONDS from status
  shift
  mkdir -p "$(dirname "$log")"
  from=$(($(stat -c %s "$log" 2>/dev/null || echo 0) + 1))
  printf '%s ...' "$title"
  show_progress "$title" 2>/dev/null &
  beat=$!
  set +e
  (set -e && "$@") >>"$log" 2>&1 </dev/null
  status=$?
  set -e
  stop_beat
  [ ! -t 1 ] || printf '\r\033[K%s ...' "$title"
  if [ $status != 0 ]; then
    printf ' failed\n'
    tail -c "+$from" "$log" | tail -n 40 >&2
    printf '%s failed; the whole output is in %s\n' "$title" "$log" >&2
    exit $status
  fi
  printf ' %d s\n' $((SECONDS - started))
}
