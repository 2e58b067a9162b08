# Shared by the scripted tests that run `lacuna serve`; each sources it after lib.sh, whose clean_up it takes.
# shellcheck shell=bash
# shellcheck disable=SC2154 # lib.sh sets repository, work and plugin

program=${LACUNA_COMMAND:-$repository/.build/release/lacuna}
serve_pid=''
# shellcheck disable=SC2317 # finish() calls it
clean_up() { [ -z "$serve_pid" ] || kill -KILL "$serve_pid" 2>/dev/null; }

listens_or_ended() { [ -s "$work/pid" ] || has_ended "$serve_pid"; }

# start_serve ARGUMENT...: `lacuna serve` of $work/s.lacuna in the background of this test, with what it says in $work/log.
start_serve() {
  rm -f "$work/pid"
  LACUNA_PLUGIN=$plugin "$program" serve "$work/s.lacuna" --pidfile "$work/pid" "$@" >"$work/log" 2>&1 &
  serve_pid=$!
  wait_until 60 listens_or_ended
  [ -s "$work/pid" ] || not_ok "lacuna serve $*" "$(cat "$work/log")"
}

# stop_serve NAME: ok if it ends by itself with status 0 when told to; then all that it says is in $work/log.
stop_serve() {
  local status
  kill -TERM "$serve_pid"
  wait_until 20 has_ended "$serve_pid" || kill -KILL "$serve_pid"
  wait "$serve_pid"
  status=$?
  serve_pid=''
  check_equal "$1: the server ends well" 0 "$status"
}
