#!/bin/bash
# What other users can do to a store by its control socket and its lock: listen in the server's place, be in its way, connect to it.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need strangers nbdkit python3 setpriv unshare
if [ "$(id -u)" -ne 0 ]; then
  skip strangers "being several users takes root"
  exit 0
fi

program=${LACUNA_COMMAND:-$repository/.build/release/lacuna}
if ! setpriv --reuid 54321 --regid 54321 --clear-groups "$program" --version >/dev/null 2>&1; then
  skip strangers "other users may not run $program"
  exit 0
fi
peer_program=$work/peer.py
cp "$scripted_folder/strangers_peer.py" "$peer_program"
chmod 755 "$work" && chmod 644 "$peer_program"
peers=() peer=''
# shellcheck disable=SC2317 # finish() calls it
clean_up() {
  local pid
  for pid in "${peers[@]}"; do kill -KILL "$pid" 2>/dev/null; done
}

# shellcheck disable=SC2317 # check calls it
# as USER-ID COMMAND...: without an account, a group or a right.
as() {
  local user=$1
  shift
  setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
}
# start_peer USER-ID ARGUMENT...: with a file behind them that tells when it is ready.
start_peer() {
  local user=$1
  shift
  rm -f "$work/open/ready"
  # Not by the function, whose process would be a shell.
  setpriv --reuid "$user" --regid "$user" --clear-groups python3 "$peer_program" "$@" "$work/open/ready" \
    >/dev/null 2>>"$work/peer.log" &
  peer=$!
  peers+=("$peer")
  wait_until 20 test -e "$work/open/ready" || not_ok "a peer begins" "$*" "$(cat "$work/peer.log")"
}
stop_peer() {
  local pid=${1:-$peer}
  kill -KILL "$pid" 2>/dev/null
  wait "$pid" 2>/dev/null
}
# refuses NAME WORDS COMMAND...: ends with 1 and one line that has these words in it.
refuses() {
  local name=$1 words=$2 status word missing=''
  shift 2
  if [ "$(type -t "$1")" = function ]; then
    "$@" >"$work/refusal.out" 2>"$work/refusal"
  else
    timeout 60 "$@" >"$work/refusal.out" 2>"$work/refusal"
  fi
  status=$?
  while IFS= read -r word; do
    grep -qF -e "$word" "$work/refusal" || missing+=" '$word'"
  done <<<"$words"
  if [ "$status" -eq 1 ] && [ -z "$missing" ] && [ "$(wc -l <"$work/refusal")" -eq 1 ] && [ ! -s "$work/refusal.out" ]; then
    ok "$name"
  else
    not_ok "$name" "status $status, missing:$missing" "$(cat "$work/refusal" "$work/refusal.out")"
  fi
}
# shellcheck disable=SC2317 # refuses calls it
serve_once() { timeout 60 nbdkit -U - "$plugin" "$@" --run 'echo served'; }

# A folder that everybody may put something into, as /tmp is.
mkdir -m 1777 "$work/open"
store=$work/open/s.lacuna socket=$work/open/s.lacuna.sock seen=$work/open/seen
check "a store is made" "$program" create "$store" --volume vm1 --size 64M
check_equal "for its owner alone" "600 0" "$(stat --format '%a %u' "$store")"
check "it has a snapshot" "$program" snapshot "$store" vm1@a

# --- A server of the own user's that says nothing; looked at below, since it takes half a minute

start_peer 0 mute "$work/open/mute.sock"
mute=$peer
(
  timeout 90 "$program" info "$store" --control "$work/open/mute.sock" >"$work/mute" 2>&1
  echo "status $?" >>"$work/mute"
) &
mute_client=$!

# --- Somebody else's server

chmod 644 "$store"
start_peer 54321 listen "$socket" "$seen"
listener=$peer
who=$'uid 54321\nprocess '"$listener"$'\nnothing was sent\nremove the socket'
verbs=(
  "info" "info vm1" "list" "map vm1" "diff vm1@a vm1" "stats" "check" "dump 0" "create --volume new --size 1M"
  "resize vm1 +1M" "rename vm1 new" "set vm1 --read-only" "delete vm1@a --yes" "snapshot vm1@b" "clone vm1@a new"
  "rollback vm1@a --yes" "promote vm1+x new" "trim" "stop"
)
for words in "${verbs[@]}"; do
  read -ra verb <<<"$words"
  refuses "'$words' is not asked of a stranger's server" "$who" "$program" "${verb[0]}" "$store" "${verb[@]:1}" --control "$socket"
done
refuses "nor does 'stop' look for the server there" "$who" "$program" stop "$store"
start_peer 54321 lock "$store" 600
refuses "nor 'snapshot', where the stranger keeps the store locked" "$who" "$program" snapshot "$store" vm1@b
stop_peer
check "the stranger was sent nothing" test ! -s "$seen"
check "without the lock, nobody asks there" "$program" list "$store"
if as 54322 unshare --user true 2>/dev/null; then
  chmod 666 "$socket"
  refuses "where no user has a number, nobody is believed" $'uid 65534\nnothing was sent' \
    as 54322 unshare --user "$program" info "$store" --control "$socket"
  check "the stranger was still sent nothing" test ! -s "$seen"
else
  skip "where no user has a number" "no user namespaces can be made"
fi

# --- A server that finds it in its way

in_the_way=$'uid 54321\n'"$socket"$'\nhave it removed, or say where to listen, with control='
refuses "no server starts beside a stranger's" "$in_the_way"$'\nprocess '"$listener" serve_once "$store"
refuses "nor with control=" "$in_the_way" serve_once "$store" "control=$socket"
stop_peer "$listener"
refuses "nor beside one that a stranger's left" "$in_the_way"$'\nwas left by' serve_once "$store"
check "the stranger's socket is there still" test -S "$socket"
check_equal "with control=off it is served" served "$(serve_once "$store" control=off 2>&1)"
rm "$socket"
as 54321 touch "$socket"
refuses "nor where a stranger has put a file" $'uid 54321\nis no socket\nremove it, or say where to listen' serve_once "$store"
rm "$socket"

# --- Strangers who connect to the right server

start_server "$plugin" "$store" || exit 1
chmod 666 "$socket"
check_equal "a stranger has no answer" "" "$(as 54321 python3 "$peer_program" connect "$socket" 50)"
as 54323 python3 "$peer_program" connect "$socket" 50
check_equal "and the log has one line of each" "uid 54321
uid 54323" "$(grep -o 'uid 543[0-9]*' "$work/server.log")"
check "root is answered" "$program" snapshot "$store" vm1@c
stop_server "the server ends well"

# --- Who may write to the store, and who owns it

chown 54321 "$store"
check "a server of root's" start_server "$plugin" "$store"
check "root manages it" "$program" list "$store"
chmod 666 "$socket"
check "its owner too, where the socket is open to them" as 54321 "$program" list "$store"
stop_server "it ends well"
chmod 666 "$store"
start_peer_server() {
  rm -f "$work/open/nbd" "$work/open/pid"
  setpriv --reuid 54322 --regid 54322 --clear-groups nbdkit -f -U "$work/open/nbd" -P "$work/open/pid" "$plugin" "store=$store" "control=$work/open/other.sock" \
    >"$work/other.log" 2>&1 &
  peer=$!
  peers+=("$peer")
  wait_until 20 test -s "$work/open/pid" || not_ok "another user's server starts" "$(cat "$work/other.log")"
}
end_peer_server() {
  kill -TERM "$peer"
  wait "$peer"
}
start_peer_server
check "root believes a server that has the store open for writing" "$program" list "$store" --control "$work/open/other.sock"
end_peer_server
chmod 644 "$store"
start_peer_server
refuses "but not one that only reads it" $'uid 54322\nnothing was sent' \
  "$program" list "$store" --control "$work/open/other.sock"
end_peer_server
chown 0 "$store"

# --- A stranger who keeps it locked

start_peer 54321 lock "$store" 600
keeps=$'uid 54321\nin use by process '"$peer (python3)"$'\nevery user with the right to read it can keep it locked\nchmod go-r '"$store"
began=$SECONDS
refuses "it is said who keeps it locked, and what helps" "$keeps" "$program" snapshot "$store" vm1@d
check "after some seconds" test $((SECONDS - began)) -ge 4
check_at_most "and not many" 20 $((SECONDS - began))
refuses "a server says the same" "$keeps" serve_once "$store"
stop_peer
for what in snapshot server; do
  start_peer 54321 lock "$store" 2
  case $what in
    snapshot) check "a moment of it is waited for by a verb" "$program" snapshot "$store" vm1@e ;;
    server) check_equal "and by a server" served "$(serve_once "$store" 2>&1)" ;;
  esac
done
chmod 600 "$store"

# --- The server that says nothing

wait "$mute_client"
check "one that says nothing is given up" grep -q "$work/open/mute.sock has said nothing for 30 seconds" "$work/mute"
check "with status 1" grep -qx "status 1" "$work/mute"
stop_peer "$mute"
