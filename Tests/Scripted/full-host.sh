#!/bin/bash
# A store on a file system that runs full, and has room again later. On btrfs, which writes whatever is overwritten to other places
# unless a file has the attribute NOCOW, that hits what a store overwrites as well: its journal and its superblocks. And a store
# that comes to the longest file that its process may write (`ulimit -f`), which ends a process that does not look after that.
# Errors are ENOSPC; the server lives and serves what it has; with room again all goes on, and nothing acknowledged is lost.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need full-host nbdkit python3
lacuna=${LACUNA_COMMAND:-$(dirname "$plugin")/lacuna}

if ! python3 -c 'import nbd' 2>/dev/null; then
  skip full-host "libnbd's Python bindings are not installed"
  exit 0
fi
if [ ! -x "$lacuna" ]; then
  not_ok "the command is there" "no program at $lacuna: build it, or set LACUNA_COMMAND to its file"
  exit 1
fi

loop='' is_mounted=''
# shellcheck disable=SC2317 # finish() calls it
clean_up() {
  # The file system is in use while its store is served.
  if [ -n "$server_pid" ]; then stop_server "the server ends cleanly"; fi
  if [ -n "$is_mounted" ] && ! timeout 60 umount "$work/files"; then
    not_ok "the file system is unmounted"
    umount --lazy "$work/files"
  fi
  if [ -n "$loop" ]; then losetup --detach "$loop"; fi
}

kill_server() {
  kill -KILL "$server_pid"
  wait "$server_pid" 2>/dev/null
  server_pid=''
}

# client WHAT: `fill` writes, zeroes and trims until everything fails, and on for a while; `go-on` does the same and expects no error;
# `compare` looks only. All three compare the disk with what was acknowledged, which they keep in a file.
client() {
  timeout 100 python3 - "$1" "$uri" "$work/acknowledged" <<'PYTHON'
import errno, json, nbd, os, random, sys
what, uri, notes = sys.argv[1:]
PIECE = 4096
disk = nbd.NBD()
disk.connect_uri(uri)
pieces = disk.get_size() // PIECE
seed = int(os.environ.get("LACUNA_SEED", random.randrange(1 << 32)))
source = random.Random(seed)
# What each piece holds, or may hold where a change of it failed.
state = {int(key): value for key, value in json.load(open(notes)).items()} if os.path.exists(notes) else {}
errors = {}

def change(number, value):
    """Writes a value, or with 0 zeroes or trims, and returns whether that went well."""
    try:
        if value:
            disk.pwrite(bytes([value]) * PIECE, number * PIECE)
        elif source.randrange(2):
            disk.zero(PIECE, number * PIECE)
        else:
            # What a trim leaves reads as zeroes here.
            disk.trim(PIECE, number * PIECE)
        state[number] = [value]
        return True
    except nbd.Error as error:
        state[number] = state.get(number, [0]) + [value]
        name = errno.errorcode.get(error.errnum, str(error.errnum))
        errors[name] = errors.get(name, 0) + 1
        return False

def compare():
    for number, values in state.items():
        found = disk.pread(PIECE, number * PIECE)
        assert found in [bytes([value]) * PIECE for value in values], f"piece {number} is not {values}, seed {seed}"

compare()
done = 0
if what == "fill":
    failed = 0
    while failed < 200:
        assert done < 50_000, "the file system does not become full"
        if change(source.randrange(pieces), source.randrange(256) if source.randrange(6) else 0):
            done += 1
        else:
            failed += 1
        if done % 40 == 0:
            disk.flush()
    assert list(errors) == ["ENOSPC"], f"the errors are {errors}"
elif what == "go-on":
    for _ in range(500):
        change(source.randrange(pieces), source.randrange(256))
    assert not errors, f"there is room, and changes fail: {errors}"
if what != "compare":
    disk.flush()
compare()
print(f"{done} changes, then {errors}" if errors else "no errors")
json.dump(state, open(notes, "w"))
PYTHON
}

# says NAME WORDS COMMAND...: ok if the command succeeds and prints the words.
says() {
  local name=$1 words=$2
  shift 2
  check "$name" "$@" || return
  if ! grep -qF -- "$words" "$work/check.out"; then not_ok "$name: it says '$words'" "$(cat "$work/check.out")"; fi
}

# run_full STORE: what happens to a served store when its file system runs full, and is larger again.
run_full() {
  local store=$1 what=$2
  rm -f "$work/acknowledged"
  start_server "$plugin" "store=$store" || return
  # All that is not the store's, but for a little.
  python3 - "$work/files" "$store" <<'PYTHON'
import os, subprocess, sys
folder, store = sys.argv[1:]
end, size = 0, 64 << 20
while size >= 65536:
    if subprocess.run(["fallocate", f"--offset={end}", f"--length={size}", f"{folder}/filler"], capture_output=True).returncode:
        size //= 2
    else:
        end += size
PYTHON
  check "$what: the file system runs full, changes fail with ENOSPC alone, and what was acknowledged is there" client fill
  sed 's/^/# /' "$work/check.out"
  if has_ended "$server_pid"; then not_ok "$what: the server lives"; fi
  kill_server
  # Full, and with a journal that nobody has merged.
  says "$what: the command opens it for reading while the file system is full" disk "$lacuna" list "$store"
  check "$what: it is sound" "$lacuna" check "$store" --data
  start_server -r "$plugin" "store=$store" || return
  check "$what: a server opens it while the file system is full, and all that was acknowledged is there" client compare
  kill_server
  start_server "$plugin" "store=$store" || return
  rm "$work/files/filler" && btrfs filesystem sync "$work/files"
  if grep -q 'clients that want to write are refused' "$work/server.log"; then
    printf '# it could be opened for reading only\n'
    kill_server
    start_server "$plugin" "store=$store" || return
  fi
  check "$what: with room again it can be written to" client go-on
  stop_server "$what: the server ends cleanly"
  check "$what: it is sound in the end" "$lacuna" check "$store" --data
  rm -f "$store"
}

# run_live STORE: the same, with room again while the server runs.
run_live() {
  local store=$1 what=$2
  rm -f "$work/acknowledged"
  start_server "$plugin" "store=$store" || return
  local number
  for number in {1..64}; do fallocate --length=256K "$work/files/filler.$number"; done
  check "$what: changes fail with ENOSPC alone" client fill
  sed 's/^/# /' "$work/check.out"
  # Every second one: a block group of btrfs that nothing is left in may become one for metadata, and files have no room then.
  rm "$work/files"/filler.*[02468] && btrfs filesystem sync "$work/files"
  check "$what: with room again, the same server goes on" client go-on
  kill_server
  # The store may have taken all room again.
  start_server -r "$plugin" "store=$store" || return
  grep -F 'clients that want to write' "$work/server.log" | sed 's/^/# /'
  check "$what: after its death, all that was acknowledged is there" client compare
  stop_server "$what: the server ends cleanly"
  rm -f "$store" "$work/files"/filler.*
}

# A copy without the attribute, as a store has that an older version made.
copy_without_nocow() { cp --reflink=never "$1" "$2"; }

run_btrfs() {
  local program
  for program in mkfs.btrfs btrfs lsattr losetup mount umount fallocate; do
    if ! command -v "$program" >/dev/null; then
      skip "btrfs" "$program is not installed"
      return
    fi
  done
  if [ "$(id -u)" -ne 0 ]; then
    skip "btrfs" "mounting needs root"
    return
  fi
  mkdir "$work/files"
  truncate --size=128M "$work/image"
  if ! loop=$(losetup --find --show "$work/image" 2>"$work/losetup"); then
    loop=''
    skip "btrfs" "no loop device can be had: $(cat "$work/losetup")"
    return
  fi
  if ! mkfs.btrfs --quiet "$loop" >"$work/mkfs" 2>&1; then
    not_ok "mkfs.btrfs" "$(cat "$work/mkfs")"
    return
  fi
  if ! mount -t btrfs "$loop" "$work/files" 2>"$work/mount"; then
    skip "btrfs" "this kernel cannot mount btrfs: $(cat "$work/mount")"
    return
  fi
  is_mounted=yes
  local new=$work/files/new.lacuna old=$work/files/old.lacuna
  check "a store is made" "$lacuna" create "$new" --volume disk --size 64M --journal 1M
  check_equal "a new store has the attribute NOCOW" "yes" \
    "$(lsattr "$new" | awk '{ print $1 ~ /C/ ? "yes" : "no" }')"
  check "it is checked" "$lacuna" check "$new"
  check_equal "nothing is said of its attributes" 0 "$(grep -c 'NOCOW' "$work/check.out")"
  copy_without_nocow "$new" "$old"
  says "the check tells of a store without it, which is no finding" "note: $old is on btrfs without the attribute NOCOW" \
    "$lacuna" check "$old"
  run_full "$new" "NOCOW"
  run_full "$old" "copy-on-write"
  check "a store is made again" "$lacuna" create "$new" --volume disk --size 64M --journal 1M
  copy_without_nocow "$new" "$old"
  run_live "$new" "NOCOW, live"
  run_live "$old" "copy-on-write, live"
}

run_file_limit() {
  local store=$work/limited.lacuna
  rm -f "$work/acknowledged"
  check "a store is made" "$lacuna" create "$store" --volume disk --size 64M --journal 1M
  # In units of 1024 bytes; only this shell's children have it.
  (
    ulimit -f 16384
    exec nbdkit -f -U "$work/server.sock" -P "$work/server.pid" "$plugin" "store=$store" 2>"$work/server.log"
  ) &
  server_pid=$!
  uri="nbd+unix:///?socket=$work/server.sock"
  wait_until 20 server_listens_or_ended
  check "a server that may write no longer files fails changes with ENOSPC, and lives" client fill
  sed 's/^/# /' "$work/check.out"
  stop_server "the server ends cleanly"
  start_server "$plugin" "store=$store" || return
  check "without that limit, the store goes on" client go-on
  stop_server "the server ends cleanly"
  check "the store is sound" "$lacuna" check "$store" --data
  # In 512 KiB there is room for no journal, and for nothing new in a store.
  check_equal "the command says so, and makes no store" "1: File too large" "$(limited create "$work/none.lacuna" --size 1G)"
  check_equal "nothing is left of that" "" "$(find "$work" -name '*none.lacuna*')"
  check_equal "the command says so of a store that is there" "1: File too large" "$(limited snapshot "$store" disk@a)"
  check "and that one is as it was" "$lacuna" check "$store" --data
}

# limited ARGUMENTS: the exit status of the command where no file may be longer than 512 KiB, and its reason.
limited() {
  local status
  (
    ulimit -f 512
    exec "$lacuna" "$@"
  ) >"$work/limited" 2>&1
  status=$?
  printf '%s: %s\n' "$status" "$(grep -o 'File too large' "$work/limited" | head -n 1)"
}

run_file_limit
run_btrfs
