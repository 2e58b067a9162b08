# Shared by scripted tests in which another process holds a store. Sourced after lib.sh.
# shellcheck shell=bash
# shellcheck disable=SC2154 # from lib.sh

holder=''

# hold STORE ARGUMENT...: a process has it until `release`; see hold_store.py.
hold() {
  rm -f "$1.sock"
  coproc HOLDER { exec python3 "$scripted_folder/hold_store.py" "$@" 2>"$work/holder.err"; }
  # shellcheck disable=SC2153 # what coproc sets
  holder=$HOLDER_PID
  read -r -t 20 <&"${HOLDER[0]}" || not_ok "a process holds the store" "$(cat "$work/holder.err")"
}

release() {
  if [ -z "$holder" ]; then return; fi
  kill "$holder" 2>/dev/null
  wait "$holder" 2>/dev/null
  holder=''
}
