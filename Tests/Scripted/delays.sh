#!/bin/bash
# Races of the server, found by delays of its calls on the device alone: directed ones, then a model; Tests/Delays has both.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need delays nbdkit cc
if ! python3 -c 'import nbd' 2>/dev/null; then
  skip delays "Python has no module nbd"
  exit 0
fi

check "the library of delays compiles" \
  cc -O2 -Wall -Wextra -Werror -shared -fPIC -o "$work/delays.so" "$repository/Tests/Delays/delays.c" -ldl || exit 1

# run_delays NAME SECONDS ARGUMENT...: what it prints are lines as of this test. It is stopped after so many seconds.
run_delays() {
  local name=$1 seconds=$2 status
  shift 2
  LACUNA_PLUGIN=$plugin LACUNA_DELAYS=$work/delays.so TMPDIR=$work PYTHONPATH=$repository/Tests PYTHONDONTWRITEBYTECODE=1 \
    timeout --kill-after=10 "$seconds" python3 -m Delays "$@" >"$work/delays.out" 2>"$work/delays.err"
  status=$?
  relay <"$work/delays.out"
  # 3 stands for failures that have a line each; 1 is Python's, where the test itself has failed.
  case $status in
    0 | 3) ok "$name come to their end" ;;
    *) not_ok "$name come to their end" "status $status" "$(cat "$work/delays.err")" ;;
  esac
}

run_delays "the directed cases" 240 directed
run_delays "the rounds of the model" 240 model --seconds 110 --round-seconds 5
