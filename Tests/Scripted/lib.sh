# Shared by the scripted tests; each sources it first.
#
# A test prints one line for each thing it looked at: "ok NAME", "not ok NAME" with lines of detail that begin with
# "#", or "skip NAME: REASON". It ends with "N passed, N failed, N skipped", and with status 1 where something failed,
# 77 where all was skipped.
#
# Everything lives in a private directory that goes away at the end, every wait has a bound, and what is stopped is
# stopped by the process number that starting it gave.
# shellcheck shell=bash

set -u -o pipefail
umask 077

scripted_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$scripted_folder/../.." && pwd)
plugin=${LACUNA_PLUGIN:-$repository/.build/debug/libnbdkit-lacuna-plugin.so}
work=$(mktemp -d "${TMPDIR:-/tmp}/lacuna-scripted-XXXXXX")
passed=0 failed=0 skipped=0
server_pid='' server_socket='' uri=''
# shellcheck disable=SC2034  # For the tests that source this file.
memory_engines=(extent chain bytes)
# What a disk can be served from.
# shellcheck disable=SC2034 # used by the scripts that read this file
engines=("${memory_engines[@]}" disk)

ok() {
  passed=$((passed + 1))
  printf 'ok %s\n' "$1"
}

# not_ok NAME [DETAIL...]: the details may have several lines.
not_ok() {
  failed=$((failed + 1))
  printf 'not ok %s\n' "$1"
  shift
  if [ $# -gt 0 ]; then printf '%s\n' "$@" | head -n 40 | sed 's/^/# /'; fi
}

skip() {
  skipped=$((skipped + 1))
  printf 'skip %s: %s\n' "$1" "$2"
}

# check NAME COMMAND...: ok if the command succeeds within two minutes. It may be a function of the test, which then
# runs in this very shell and bounds itself.
check() {
  local name=$1 status
  shift
  if [ "$(type -t "$1")" = function ]; then
    "$@" >"$work/check.out" 2>&1
  else
    timeout 120 "$@" >"$work/check.out" 2>&1
  fi
  status=$?
  if [ "$status" -eq 0 ]; then ok "$name"; else not_ok "$name" "status $status of: $*" "$(cat "$work/check.out")"; fi
  return "$status"
}

# check_equal NAME EXPECTED FOUND
check_equal() {
  if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected: $2" "found: $3"; fi
}

# check_at_most NAME LIMIT NUMBER
check_at_most() {
  if [ "$3" -le "$2" ]; then ok "$1 ($3, at most $2)"; else not_ok "$1" "$3 is more than $2"; fi
}

# relay: copies a test's lines from standard input and counts them.
relay() {
  local line
  while IFS= read -r line; do
    printf '%s\n' "$line"
    case $line in
    "ok "*) passed=$((passed + 1)) ;;
    "not ok "*) failed=$((failed + 1)) ;;
    "skip "*) skipped=$((skipped + 1)) ;;
    esac
  done
}

# wait_until SECONDS COMMAND...: false when the command has not succeeded by then.
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    if [ "$SECONDS" -ge "$end" ]; then return 1; fi
    sleep 0.02
  done
}

has_ended() { ! kill -0 "$1" 2>/dev/null; }

server_listens_or_ended() { [ -s "$work/server.pid" ] || has_ended "$server_pid"; }

# start_server NBDKIT-ARGUMENT...: one server at a time, at $uri.
start_server() {
  server_socket=$work/server.sock
  rm -f "$server_socket" "$work/server.pid"
  nbdkit -f -U "$server_socket" -P "$work/server.pid" "$@" 2>"$work/server.log" &
  server_pid=$!
  uri="nbd+unix:///?socket=$server_socket"
  if wait_until 20 server_listens_or_ended && ! has_ended "$server_pid"; then return; fi
  not_ok "a server starts" "nbdkit $*" "$(cat "$work/server.log")"
  return 1
}

# engine_parameters ENGINE SIZE NAME: sets `parameters`, which make a new disk; one on disk is called NAME in $work.
engine_parameters() {
  case $1 in
    disk)
      rm -f "$work/$3.lacuna"
      parameters=("store=$work/$3.lacuna" "size=$2")
      ;;
    *) parameters=("memory=$2" "engine=$1") ;;
  esac
}

# start_engine ENGINE SIZE [NBDKIT-OPTION...]
start_engine() {
  local engine=$1 size=$2
  shift 2
  local parameters=()
  engine_parameters "$engine" "$size" served
  start_server "$@" "$plugin" "${parameters[@]}"
}

# stop_server NAME: ok if it ends by itself with status 0 when told to.
stop_server() {
  local status
  if [ -z "$server_pid" ]; then return; fi
  kill -TERM "$server_pid" 2>/dev/null
  wait_until 20 has_ended "$server_pid" || kill -KILL "$server_pid" 2>/dev/null
  wait "$server_pid"
  status=$?
  server_pid=''
  if [ "$status" -eq 0 ]; then ok "$1"; else not_ok "$1" "status $status" "$(cat "$work/server.log")"; fi
}

# allocated_bytes: how much of the export at $uri block status calls data.
allocated_bytes() {
  timeout 60 nbdinfo --map --json "$uri" | jq 'map(select(.type == 0) | .length) | add // 0'
}

# make_image FILE SIZE SEED: a sparse file with islands of data, from one byte to a few hundred KiB.
make_image() {
  python3 - "$@" <<'PYTHON'
import random, sys
path, size, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
source = random.Random(seed)
with open(path, "wb") as image:
    image.truncate(size)
    for _ in range(40):
        length = min(source.choice([1, 511, 4096, 5000, 65536, 300_001]), size)
        image.seek(source.randrange(size - length + 1))
        image.write(source.randbytes(length))
PYTHON
}

# Further clean-up of a single test; runs first.
clean_up() { :; }

finish() {
  trap - EXIT
  clean_up
  if [ -n "$server_pid" ]; then
    kill -TERM "$server_pid" 2>/dev/null
    wait_until 10 has_ended "$server_pid" || kill -KILL "$server_pid" 2>/dev/null
    wait "$server_pid" 2>/dev/null
  fi
  rm -rf "$work"
  printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  if [ "$failed" -gt 0 ]; then exit 1; fi
  if [ "$passed" -eq 0 ]; then exit 77; fi
  exit 0
}
trap finish EXIT
trap 'exit 1' INT TERM

# need NAME PROGRAM...: skips the whole test where a program is missing.
need() {
  local name=$1 program
  shift
  for program in "$@"; do
    if ! command -v "$program" >/dev/null; then
      skip "$name" "$program is not installed"
      exit 0
    fi
  done
}

# The Python bindings of libnbd come with the system's Python, which need not be the first one in PATH.
if ! python3 -c 'import nbd' 2>/dev/null && /usr/bin/python3 -c 'import nbd' 2>/dev/null; then
  PATH=/usr/bin:$PATH
fi

# No skipping here: without the plugin there is nothing that these tests could be about.
if [ ! -r "$plugin" ]; then
  not_ok "the plugin is there" "no plugin at $plugin: build it, or set LACUNA_PLUGIN to its file"
  exit 1
fi
plugin=$(cd "$(dirname "$plugin")" && pwd)/$(basename "$plugin")
