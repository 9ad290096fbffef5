# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts, with $log set and the clone as working directory.

: "${log:?}"
mkdir -p "$(dirname "$log")"
: >"$log"
# Lets ccache recognise a file in another clone.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$PWD} CCACHE_NOHASHDIR=1

# Shows how far a step is until its standard input ends.
show_progress() {
  local title=$1 started=$SECONDS every=30 line status
  [ ! -t 1 ] || every=1
  while true; do
    status=0
    read -r -t "$every" || status=$?
    [ $status -gt 128 ] || break # no time-out: the end
    line=$(tail -c 500 "$log" | tr '\r' '\n' | tail -n 1 | cut -c 1-80)
    if [ -t 1 ]; then
      printf '\r\033[K%s ... %d s  %.60s' "$title" $((SECONDS - started)) "$line"
    else
      printf '\n      %d s: %s' $((SECONDS - started)) "$line"
    fi
  done
}

# attempt TITLE COMMAND...: runs COMMAND with its output in $log and shows one line: the title, while it runs the last
# line of its output, at the end the seconds it took. If it fails, prints the end of that output and returns its status.
# (set -e does not reach into COMMAND: a function given here joins its commands by &&.)
attempt() {
  local title=$1 started=$SECONDS status=0 from progress
  shift
  from=$(($(stat -c %s "$log") + 1))
  printf '%s ...' "$title"
  exec {progress}> >(show_progress "$title")
  "$@" >>"$log" 2>&1 </dev/null || status=$?
  exec {progress}>&-
  wait $! || true
  [ ! -t 1 ] || printf '\r\033[K%s ...' "$title"
  if [ "$status" = 0 ]; then
    printf ' %d s\n' $((SECONDS - started))
  else
    printf ' failed\n'
    tail -c "+$from" "$log" | tail -n 100
    printf '%s failed; the whole output is in %s\n' "$title" "${log#"$PWD"/}"
  fi
  return "$status"
}

# step TITLE COMMAND...: the same, and ends the script if it fails.
step() { attempt "$@" || exit 1; }

# configure PRESET: makes the build folder of a preset, anew if the clone was moved.
configure() {
  local home
  home=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "build/$1/CMakeCache.txt" 2>/dev/null)
  if [ -n "$home" ] && [ "$home" != "$PWD" ]; then rm -rf "build/$1"; fi
  cmake --preset "$1"
}
