#!/bin/bash
# A server whose clients have used up all threads that its user may have: the control socket answers, and can end it.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need threads nbdkit python3 setpriv pgrep
if [ "$EUID" -ne 0 ]; then
  skip threads "it runs a server as another user, which takes root"
  exit 0
fi

program=${LACUNA_COMMAND:-$repository/.build/release/lacuna}
user=54321
# shellcheck disable=SC2317 # finish() calls it
clean_up() {
  [ -n "${client:-}" ] || return
  kill -KILL "$client" 2>/dev/null
  wait "$client" 2>/dev/null
}

# That user must get at the plugin and at the store, and at nothing else of this machine.
chmod 711 "$work"
cp "$plugin" "$work/plugin.so" && chmod 755 "$work/plugin.so"
install -d -o "$user" -g "$user" -m 700 "$work/store"
setpriv --reuid "$user" --regid "$user" --clear-groups bash -c 'ulimit -u 120 && exec "$@"' - \
  nbdkit -f -U "$work/store/nbd" -P "$work/store/pid" "$work/plugin.so" "$work/store/s.lacuna" size=16M 2>"$work/server.log" &
server_pid=$!
# shellcheck disable=SC2317 # wait_until calls it
serves_or_ended() { [ -s "$work/store/pid" ] || has_ended "$server_pid"; }
wait_until 20 serves_or_ended
check "a server of a user who may have 120 threads" test -s "$work/store/pid"

# Idle clients, until one more cannot be served.
python3 - "$work" <<'PYTHON' &
import nbd, sys, time
work, clients = sys.argv[1], []
try:
    while len(clients) < 20:
        client = nbd.NBD()
        client.connect_unix(f"{work}/store/nbd")
        client.pread(512, 0)
        clients.append(client)
except nbd.Error:
    pass
with open(f"{work}/clients", "w") as file:
    file.write(str(len(clients)))
time.sleep(600)
PYTHON
client=$!
check "clients take what there is" wait_until 30 test -s "$work/clients"
check_at_most "clients that were served" 10 "$(cat "$work/clients")"
check "there are no threads left" grep -q 'pthread_create: Resource temporarily unavailable' "$work/server.log"
# As many as there may be at once, and one after the other.
for _ in 1 2 3; do
  check "the server can be asked" timeout 20 "$program" info "$work/store/s.lacuna"
done
check "and ended" timeout 30 "$program" stop "$work/store/s.lacuna"
check "it has ended" wait_until 20 has_ended "$server_pid"
wait "$server_pid"
check_equal "it ended well" 0 "$?"
server_pid=''
