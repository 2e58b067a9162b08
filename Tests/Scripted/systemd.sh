#!/bin/bash
# The units for systemd, as they are installed, with a systemd that has a machine of its own, made of namespaces.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need "systemd" systemd systemctl systemd-analyze systemd-sysusers journalctl unshare nsenter pivot_root setpriv nbdkit nbdinfo

if [ "$(id -u)" -ne 0 ]; then
  skip "systemd" "making a machine takes root"
  exit 0
fi
namespaces=(--mount --pid --cgroup --ipc --uts --net)
groups=$(findmnt --noheadings --output TARGET --types cgroup2 | head -n 1)
own_group=$groups$(sed -n 's/^0:://p' /proc/self/cgroup)
if [ -z "$groups" ] || [ ! -w "$own_group" ] || ! unshare "${namespaces[@]}" --fork true 2>/dev/null; then
  skip "systemd" "no namespaces or no control groups (version 2) can be made here"
  exit 0
fi

place=$work/place
group=$own_group/lacuna-$$
unit_path=/etc/systemd/system:/usr/local/lib/systemd/system:/units
launcher='' machine_pid='' loop=''
# shellcheck disable=SC2317 # finish() calls it
clean_up() {
  if [ -n "$launcher" ]; then
    kill -KILL "$launcher"
    wait "$launcher" 2>/dev/null
  fi
  # All processes of the machine end with it, but a moment later.
  if [ -d "$group" ]; then wait_until 10 remove_groups; fi
  if [ -n "$loop" ]; then losetup --detach "$loop"; fi
}

# shellcheck disable=SC2317 # wait_until calls it
remove_groups() { find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null; [ ! -d "$group" ]; }

# in_machine COMMAND...
in_machine() {
  nsenter --target "$machine_pid" "${namespaces[@]}" env --ignore-environment "SYSTEMD_UNIT_PATH=$unit_path" \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin timeout 30 "$@"
}
# as_user USER-ID GROUP-ID COMMAND...: with no other group.
as_user() {
  local user=$1 group=$2
  shift 2
  in_machine setpriv --reuid "$user" --regid "$group" --clear-groups "$@"
}
shows() { in_machine systemctl show --property="$2" --value "$1"; }
# shellcheck disable=SC2317 # check calls it
is_read_only() { in_machine nbdinfo --is read-only "$1"; }
# shellcheck disable=SC2317 # wait_until calls it
is_running() { [ "$(in_machine systemctl is-system-running 2>/dev/null)" = running ]; }
# shellcheck disable=SC2317 # wait_until calls it
has_machine() {
  # A line without an end, at which read would fail.
  read -r machine_pid < <(cat "/proc/$launcher/task/$launcher/children" 2>/dev/null && echo)
  [ -n "$machine_pid" ]
}

# shellcheck disable=SC2317 # check calls it
run_install() { umask 022 && env -u SUDO_USER DESTDIR="$place" timeout 1200 "$repository/scripts/install"; }
check "scripts/install installs" run_install || exit 1
umask 022
chmod 755 "$work"

plugins=$(nbdkit --dump-config | sed -n 's/^plugindir=//p')
mkdir "$work/root" "$group"
# The group is entered by a process that becomes the machine.
(
  echo "$BASHPID" >"$group/cgroup.procs" && exec unshare "${namespaces[@]}" --fork --kill-child \
    bash "$scripted_folder/lib-machine.sh" "$work/root" "$place" "$plugins"
) >"$work/machine.log" 2>&1 &
launcher=$!
if ! { wait_until 20 has_machine && wait_until 30 is_running; }; then
  not_ok "systemd runs" "$(cat "$work/machine.log")" "$(in_machine systemctl list-units --no-pager 2>&1)"
  exit 1
fi

# --- What is installed

service=lacuna@vm1.service socket=lacuna@vm1.socket path=/run/lacuna/vm1.sock store=/var/lib/lacuna/vm1.lacuna
uri="nbd+unix:///?socket=$path"
check_equal "systemd-analyze verify has nothing to say" "" "$(in_machine systemd-analyze verify "$service" "$socket" 2>&1)"
# Of 100; more is less safe.
check "systemd-analyze security finds an exposure of less than 0.6" \
  in_machine systemd-analyze security --no-pager --offline=yes --threshold=5 /usr/local/lib/systemd/system/lacuna@.service
check "systemd-sysusers makes the user" in_machine systemd-sysusers lacuna.conf
user=$(in_machine id -u lacuna) group_of_user=$(in_machine id -g lacuna)

# --- A store that comes after its client

check "the socket starts" in_machine systemctl enable --now "$socket"
check_equal "its mode and owner" "660 root lacuna" "$(in_machine stat --format '%a %U %G' "$path")"
check_equal "nothing runs before the first client" inactive "$(shows "$service" ActiveState)"
in_machine nbdinfo --size "$uri" >"$work/early" 2>&1 &
early=$!
# shellcheck disable=SC2317 # wait_until calls it
has_restarted() { [ "$(shows "$service" NRestarts)" -ge 1 ]; }
check "a service without a store is tried again" wait_until 20 has_restarted
restarts=$(shows "$service" NRestarts)
sleep 5
check_at_most "times within 5 s" 3 "$(($(shows "$service" NRestarts) - restarts))"
check_equal "systemd goes on listening" active "$(shows "$socket" ActiveState)"
check "a store is made" as_user "$user" "$group_of_user" lacuna create "$store" --size 1G || exit 1
wait "$early"
check_equal "the client that came before it is served" 1073741824 "$(cat "$work/early")"

# --- Who may do what

check_equal "modes and owners of the folder, the store and its control socket" \
  "750 lacuna lacuna
600 lacuna lacuna
600 lacuna lacuna" "$(in_machine stat --format '%a %U %G' /var/lib/lacuna "$store" "$store.sock")"
check_equal "a member of the group may connect" 1073741824 "$(as_user 1234 "$group_of_user" nbdinfo --size "$uri")"
if as_user 1234 1234 nbdinfo --size "$uri" >"$work/other" 2>&1; then
  not_ok "others may not" "$(cat "$work/other")"
else
  check "others may not" grep -q "Permission denied" "$work/other"
fi
if as_user 1234 "$group_of_user" lacuna list "$store" >"$work/member" 2>&1; then
  not_ok "a member of the group may not manage the store" "$(cat "$work/member")"
else
  check "a member of the group may not manage the store" grep -q "Permission denied" "$work/member"
fi
check "root manages it" in_machine lacuna snapshot "$store" disk@monday
check "by way of its server" in_machine lacuna set "$store" disk --quota none --control "$store.sock"
if ! in_machine lacuna stop "$store" >"$work/stop" 2>&1 && grep -q "systemctl stop $service" "$work/stop"; then
  ok "lacuna stop leaves it to systemd"
else
  not_ok "lacuna stop leaves it to systemd" "$(cat "$work/stop")"
fi
process=$(shows "$service" MainPID)
check_equal "user, capabilities, new privileges and system calls of the server" "Uid: $user
CapBnd: 0000000000000000
NoNewPrivs: 1
Seccomp: 2" "$(in_machine sed -nE 's/^(Uid|CapBnd|NoNewPrivs|Seccomp):\s+(\S+).*/\1: \2/p' "/proc/$process/status")"
check "no core files" in_machine grep -Eq '^Max core file size +0 +0 ' "/proc/$process/limits"

# --- Requests of each kind, within the limits of the unit

check "trims, zeroes, throwaways, clones and a check work" in_machine /usr/bin/python3 -c "
import nbd, subprocess
client = nbd.NBD()
client.connect_uri('$uri')
for start in range(1 << 20, 9 << 20, 1 << 20):
    client.pwrite(b'x' * (1 << 20), start)
client.zero(1 << 20, 2 << 20)
client.trim(1 << 20, 4 << 20)
client.flush()
throwaway = nbd.NBD()
throwaway.connect_uri('nbd+unix:///disk@monday+?socket=$path')
throwaway.pwrite(b'y' * 100000, 12345)
assert throwaway.pread(100000, 12345) == b'y' * 100000
assert client.pread(1 << 20, 2 << 20) == bytes(1 << 20)
for words in 'clone disk@monday copy', 'resize disk +1G', 'delete copy --yes --wait', 'check --data', 'stats':
    verb, *rest = words.split()
    subprocess.run(['lacuna', verb, '$store', *rest], check=True)
"

# --- Deaths and restarts

cp "$scripted_folder/systemd_deaths.py" "$place/usr/local/bin/"
if in_machine /usr/bin/python3 /usr/local/bin/systemd_deaths.py "$service" "$path" 15 >"$work/deaths" 2>&1; then
  read -ra seconds <"$work/deaths"
  ok "15 servers were killed, nothing was lost, nobody was refused; back after ${seconds[0]} to ${seconds[-1]} s"
  check "one second at most, in the middle of them (${seconds[7]})" test "$((10#${seconds[7]/./}))" -le 1000
else
  not_ok "servers are killed" "$(cat "$work/deaths")" "$(in_machine journalctl --no-pager --unit "$service" --lines 30)"
fi
check "a restart under a client" in_machine /usr/bin/python3 -c "
import errno, nbd, subprocess, time
clients = [nbd.NBD() for _ in range(4)]
for client in clients:
    client.connect_unix('$path')
    client.pwrite(b'before', 4096)
began = time.monotonic()
subprocess.run(['systemctl', 'restart', '$service'], check=True)
assert time.monotonic() - began < 3, 'it waited for clients'
for client in clients:
    try:
        client.pread(6, 4096)
        raise SystemExit('an old server has answered')
    except nbd.Error as error:
        assert error.errnum != errno.ESHUTDOWN, error
    late = nbd.NBD()
    late.connect_unix('$path')
    assert late.pread(6, 4096) == b'before'
"

# --- Settings of an administrator

in_machine mkdir -p "/etc/systemd/system/$service.d" "/etc/systemd/system/$socket.d"
in_machine tee "/etc/systemd/system/$service.d/options.conf" >/dev/null <<'UNIT'
[Service]
Environment="LACUNA_OPTIONS=--read-only --anyone -- cache=1M"
UNIT
in_machine tee "/etc/systemd/system/$socket.d/tcp.conf" >/dev/null <<'UNIT'
[Socket]
ListenStream=127.0.0.1:10809
UNIT
in_machine systemctl daemon-reload
in_machine systemctl stop "$socket"
check "with changed units, it starts" in_machine systemctl start "$socket"
check_equal "its memory is bounded" 4294967296 "$(shows "$service" MemoryMax)"
check "options of the unit reach nbdkit" is_read_only "$uri"
check "TCP works too" is_read_only nbd://127.0.0.1:10809
in_machine rm -r "/etc/systemd/system/$service.d" "/etc/systemd/system/$socket.d"
in_machine systemctl daemon-reload

# --- A store on a block device

if truncate --size 96M "$work/device" && loop=$(losetup --find --show "$work/device" 2>"$work/losetup"); then
  device_store=/var/lib/lacuna/big.lacuna big="nbd+unix:///?socket=/run/lacuna/big.sock"
  control=/run/lacuna/dev/${loop##*/}.sock
  in_machine mknod -m 600 "$loop" b "$(stat --format %Hr "$loop")" "$(stat --format %Lr "$loop")"
  in_machine chown lacuna "$loop"
  in_machine ln -s "$loop" "$device_store"
  in_machine mkdir /etc/systemd/system/lacuna@big.service.d
  # shellcheck disable=SC2016 # the quotes are of Markdown
  sed -n '\|^# /etc/systemd/system/lacuna@big.service.d/device.conf|,/^```/{/^```/!p}' "$repository/docs/guides/systemd.md" \
    | sed "s|/dev/disk/by-id/ata-EXAMPLE|$loop|" | in_machine tee /etc/systemd/system/lacuna@big.service.d/device.conf >"$work/device.conf"
  check "the guide has the settings for it" grep -q "^DeviceAllow=$loop rw" "$work/device.conf"
  in_machine systemctl daemon-reload
  check "a store is made on it" in_machine lacuna create "$loop" --size 1G --volume vm1
  check "its socket starts" in_machine systemctl start lacuna@big.socket
  if size=$(in_machine nbdinfo --size "$big" 2>&1); then
    check_equal "it is served" 1073741824 "$size"
  else
    not_ok "it is served" "$size" "$(in_machine journalctl --no-pager --unit lacuna@big.service --lines 20)"
  fi
  check_equal "modes and owners of its control socket and the folder of that" "700 lacuna lacuna
600 lacuna lacuna" "$(in_machine stat --format '%a %U %G' /run/lacuna/dev "$control")"
  check "root manages it" in_machine lacuna snapshot "$device_store" vm1@monday
  check "clients write, and space goes back" in_machine /usr/bin/python3 -c "
import nbd
client = nbd.NBD()
client.connect_uri('$big')
for start in range(1 << 20, 9 << 20, 1 << 20):
    client.pwrite(b'x' * (1 << 20), start)
client.flush()
client.trim(4 << 20, 1 << 20)
client.flush()
"
  check "a restart" in_machine systemctl restart lacuna@big.service
  check "and all is there" in_machine /usr/bin/python3 -c "
import nbd
client = nbd.NBD()
client.connect_uri('$big')
assert client.pread(2 << 20, 6 << 20) == b'x' * (2 << 20)
"
  check "the other store's server is not in its way" in_machine lacuna list "$store"
  check "it stops" in_machine systemctl stop lacuna@big.socket
  check "the store is whole" in_machine lacuna check "$device_store" --data
else
  skip "a store on a block device" "no loop device can be had"
fi

# --- The end

check "stopping the socket works" in_machine systemctl stop "$socket"
check_equal "and ends the service" inactive "$(shows "$service" ActiveState)"
check "the store is whole" in_machine lacuna check "$store" --data
check_equal "the log has no complaint of the server's" "" \
  "$(in_machine journalctl --no-pager --identifier nbdkit --identifier lacuna --output cat --unit "$service" \
    | grep -Ev '^Serving at the (socket|2 sockets)|there is no store|^lacuna: warning: everybody .* [(]--anyone[)]$')"
check "scripts/uninstall uninstalls" env DESTDIR="$place" "$repository/scripts/uninstall"
