#!/bin/bash
# `lacuna serve`, by itself and as scripts/serve: a server that dies is started again, and when it is not.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need serve nbdkit nbdinfo python3 pgrep

program=$repository/.build/release/lacuna
serve_pid='' client=''
# shellcheck disable=SC2317 # finish() calls it
clean_up() {
  local pid
  for pid in $serve_pid $client; do kill -KILL "$pid" 2>/dev/null; done
}

listens_or_ended() { [ -s "$work/pid" ] || has_ended "$serve_pid"; }

# start_serve ARGUMENT...: scripts/serve in the background of this test, with its output in $work/log.
start_serve() {
  rm -f "$work/pid"
  "$repository/scripts/serve" --no-build --pidfile "$work/pid" "$@" >"$work/log" 2>&1 &
  serve_pid=$!
  wait_until 60 listens_or_ended
  [ -s "$work/pid" ] || not_ok "scripts/serve $*" "$(cat "$work/log")"
}

# start_lacuna ARGUMENT...: the same for the program itself.
start_lacuna() {
  rm -f "$work/pid"
  LACUNA_PLUGIN=$plugin "$program" serve --pidfile "$work/pid" "$@" >"$work/log" 2>&1 &
  serve_pid=$!
  wait_until 60 listens_or_ended
  [ -s "$work/pid" ] || not_ok "lacuna serve $*" "$(cat "$work/log")"
}

# start_idle_client: one that is connected and asks for nothing.
start_idle_client() {
  python3 -c "
import nbd, time
client = nbd.NBD()
client.connect_unix('$1')
client.pwrite(b'idle', 0)
open('$work/connected', 'w').close()
time.sleep(600)
" &
  client=$!
  wait_until 20 test -e "$work/connected"
  rm -f "$work/connected"
}

# wait_for_serve SECONDS: sets `status`, to `late` where it had to be killed.
wait_for_serve() {
  local late=''
  wait_until "$1" has_ended "$serve_pid" || {
    late=late
    kill -KILL "$serve_pid"
  }
  wait "$serve_pid"
  status=${late:-$?}
  serve_pid=''
}

# stop_serve NAME
stop_serve() {
  kill -TERM "$serve_pid"
  wait_for_serve 20
  check_equal "$1 ends well when told to" 0 "$status"
}

# kill_nbdkit: once it is there.
kill_nbdkit() {
  wait_until 10 pgrep -P "$serve_pid" -x nbdkit >/dev/null && pkill -KILL -P "$serve_pid" -x nbdkit
}

# Ten kills, some so soon after the last that there is a pause, of a server with a client that writes.
kill_under_load() {
  local name=$1 uri=$2 client pause result
  rm -f "$work/stop"
  timeout 120 python3 "$scripted_folder/serve_client.py" "$uri" "$work/stop" >"$work/client" 2>&1 &
  client=$!
  for pause in 1.2 0.4 1.2 0.4 0.4 0.2 0.2 0.2 1.2 1.2; do
    sleep "$pause"
    kill_nbdkit
  done
  touch "$work/stop"
  if wait "$client"; then
    read -r -a result <"$work/client"
    ok "$name: a client that reconnects goes on through ten kills, and finds all it was told (${result[0]} blocks)"
    check_at_most "$name: milliseconds that a request took" 10000 "${result[1]}"
    check_equal "$name: connections that were refused" 0 "${result[2]}"
  else
    not_ok "$name: a client that reconnects goes on through ten kills" "$(cat "$work/client" "$work/log")"
  fi
}

start_serve --socket "$work/sock" "$work/disk.lacuna" size=16M
kill_under_load "a socket" "nbd+unix:///?socket=$work/sock"
stop_serve "a socket"
check "a socket is gone with its server" test ! -e "$work/sock"

# The client is connected when the server dies, so that the kernel remembers the address.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
start_serve --port "$port" --anyone "$work/disk.lacuna"
check "a port that is open to all is warned of" \
  grep -q "^lacuna: warning: every user of this machine may read and write all volumes (--anyone)$" "$work/log"
kill_under_load "a port" "nbd://127.0.0.1:$port"
stop_serve "a port"

# A store that has gone: no empty one may take its place.
start_serve --socket "$work/sock" "$work/disk.lacuna" size=16M create=true
mv "$work/disk.lacuna" "$work/kept.lacuna"
kill_nbdkit
wait_for_serve 60
check_equal "without its store it gives up" 1 "$status"
check "it says so" grep -q '^lacuna: nbdkit failed with exit code 1, and could not begin to serve 10 times in a row; giving up$' "$work/log"
check "and why" grep -q '^nbdkit: error: .*disk.lacuna' "$work/log"
check_at_most "lines about ten attempts" 20 "$(grep -c . "$work/log")"
check "no other store was made" test ! -e "$work/disk.lacuna"

# The store comes back while it tries.
mv "$work/kept.lacuna" "$work/disk.lacuna"
start_serve --socket "$work/sock" "$work/disk.lacuna"
mv "$work/disk.lacuna" "$work/kept.lacuna"
kill_nbdkit
sleep 1
mv "$work/kept.lacuna" "$work/disk.lacuna"
check "it goes on when the store comes back" wait_until 20 nbdinfo --size "nbd+unix:///?socket=$work/sock"
mv "$work/disk.lacuna" "$work/kept.lacuna"
kill_nbdkit
sleep 1
stop_serve "one that tries"

# A volume that was resized has another size than the one that it was made with.
start_serve --socket "$work/sock" "$work/new.lacuna" size=16M
check "a volume is resized" "$program" resize "$work/new.lacuna" disk 32M
kill_nbdkit
check_equal "a disk that was resized comes back, with its size" 33554432 "$(nbdinfo --size "nbd+unix:///?socket=$work/sock")"
stop_serve "a resized one"

start_serve --socket "$work/sock" memory=16M
kill_nbdkit
wait_for_serve 20
check_equal "a disk in memory is not started again" 1 "$status"
check "and the reason is said" grep -q 'SIGKILL, and the disk in memory is gone' "$work/log"

"$repository/scripts/serve" --no-build --socket "$work/sock" "$work/nothing.lacuna" >"$work/log" 2>&1 &
serve_pid=$!
wait_for_serve 20
check_equal "one that cannot start ends at once" 1 "$status"
check_equal "one that cannot start says so once" 1 "$(grep -c . "$work/log")"

# --- The program itself

mv "$work/kept.lacuna" "$work/disk.lacuna"
# What nbdkit 1.32.5 is aborted by, with a client beside it that reconnects.
start_lacuna "$work/disk.lacuna"
rm -f "$work/stop"
timeout 120 python3 "$scripted_folder/serve_client.py" "nbd+unix:///?socket=$work/disk.lacuna.nbd" "$work/stop" >"$work/client" 2>&1 &
client=$!
check "clients that hang up in mid-request are let in, all of them" \
  python3 "$scripted_folder/serve_hang_ups.py" "nbd+unix:///?socket=$work/disk.lacuna.nbd" 60
touch "$work/stop"
if wait "$client"; then
  read -r -a result <"$work/client"
  ok "another client goes on, and finds all it was told (${result[0]} blocks; nbdkit died at least $(grep -c 'starting it again' "$work/log") times)"
  check_equal "its connections that were refused" 0 "${result[2]}"
else
  not_ok "another client goes on, and finds all it was told" "$(cat "$work/client" "$work/log")"
fi
client=''

# An idle client keeps nbdkit 1.32.5 from ending on SIGTERM.
start_idle_client "$work/disk.lacuna.nbd"
kill -TERM "$serve_pid"
sleep 0.5
kill -TERM "$serve_pid"
wait_for_serve 20
check_equal "a second SIGTERM ends it in spite of an idle client" 0 "$status"
check "its socket is gone" test ! -e "$work/disk.lacuna.nbd"
kill "$client"
wait "$client" 2>/dev/null

# The death of the supervisor, with an idle client: nothing goes on without it, and another one takes its place.
start_lacuna "$work/disk.lacuna"
start_idle_client "$work/disk.lacuna.nbd"
nbdkit_pid=$(pgrep -P "$serve_pid" -x nbdkit)
kill -KILL "$serve_pid"
wait_for_serve 20
# shellcheck disable=SC2317 # wait_until calls it
is_gone() { [ ! -e "/proc/$nbdkit_pid/stat" ] || [[ $(cat "/proc/$nbdkit_pid/stat") == *") Z "* ]]; }
check "nbdkit ends with its supervisor" wait_until 10 is_gone
kill "$client"
wait "$client" 2>/dev/null
client=''
start_lacuna "$work/disk.lacuna"
check "another one takes its place" nbdinfo --size "nbd+unix:///?socket=$work/disk.lacuna.nbd"
if LACUNA_PLUGIN=$plugin "$program" serve "$work/disk.lacuna" >"$work/second" 2>&1; then
  not_ok "a second one is refused" "$(cat "$work/second")"
else
  check "a second one is refused" grep -q "^lacuna: another server listens on the socket $work/disk.lacuna.nbd" "$work/second"
fi
check "and does not take the socket away" nbdinfo --size "nbd+unix:///?socket=$work/disk.lacuna.nbd"
stop_serve "lacuna serve"

start_lacuna --no-restart "$work/disk.lacuna"
kill_nbdkit
wait_for_serve 20
check_equal "with --no-restart it ends with nbdkit" 137 "$status"
