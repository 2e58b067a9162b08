#!/bin/bash
# Requests through nbdsh, which has libnbd's Python bindings; the tests themselves are in nbdsh_requests.py.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need nbdsh nbdsh nbdkit
if ! python3 -c 'import nbd' 2>/dev/null; then
  skip nbdsh "Python has no module nbd"
  exit 0
fi

for engine in "${engines[@]}"; do
  start_engine "$engine" 64M || continue
  script="exec(compile(open('$scripted_folder/nbdsh_requests.py').read(), '$scripted_folder/nbdsh_requests.py', 'exec'))"
  timeout 60 nbdsh --base-allocation -u "$uri" \
    -c "engine, socket_path = '$engine', '$server_socket'" -c "$script" >"$work/nbdsh.out" 2>"$work/nbdsh.err"
  status=$?
  relay <"$work/nbdsh.out"
  if [ "$status" -eq 0 ]; then
    ok "nbdsh $engine: the script came to its end"
  else
    not_ok "nbdsh $engine: the script came to its end" "status $status" "$(cat "$work/nbdsh.err")"
  fi
  stop_server "nbdsh $engine: the server ends cleanly"
done
