#!/bin/bash
# A store on XFS that is copied with `cp --reflink` while it is served. From then on every block that is written again,
# of the journal too, takes a new one; on a file system that is full there is none. The server must say so and live.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need reflink nbdkit mkfs.xfs losetup mount umount fallocate python3
rounds=3

if [ "$(id -u)" -ne 0 ]; then
  skip reflink "mounting needs root"
  exit 0
fi
if ! python3 -c 'import nbd' 2>/dev/null; then
  skip reflink "libnbd's Python bindings are not installed"
  exit 0
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

mkdir "$work/files"
# The smallest that mkfs.xfs makes has 300 MiB.
truncate --size=320M "$work/image"
if ! loop=$(losetup --find --show "$work/image" 2>"$work/losetup"); then
  loop=''
  skip reflink "no loop device can be had: $(cat "$work/losetup")"
  exit 0
fi
if ! mkfs.xfs -q -m reflink=1 "$loop" >"$work/mkfs" 2>&1; then
  not_ok "mkfs.xfs" "$(cat "$work/mkfs")"
  exit 1
fi
if ! mount -t xfs "$loop" "$work/files" 2>"$work/mount"; then
  skip reflink "this kernel cannot mount XFS: $(cat "$work/mount")"
  exit 0
fi
is_mounted=yes
store=$work/files/disk.lacuna

# client WHAT SEED: `write` writes pieces, each with its number in it; has the store copied and the file system filled in
# between; goes on until writes fail, and notes what was acknowledged. `read` compares with that.
client() {
  timeout 60 python3 - "$1" "$uri" "$work/files" "$work/acknowledged" "$2" <<'PYTHON'
import errno, json, nbd, os, subprocess, sys
what, uri, files, notes, seed = sys.argv[1:]
PIECE = 4096
disk = nbd.NBD()
disk.connect_uri(uri)

def content(number):
    return f"{seed} {number} ".encode().ljust(PIECE, b"x")

def fill(path):
    end, size = 0, 64 << 20
    open(path, "x").close()
    while size >= 4096:
        if subprocess.run(["fallocate", f"--offset={end}", f"--length={size}", path], capture_output=True).returncode:
            size //= 2
        else:
            end += size
    return end

def write(numbers):
    errors = []
    for number in numbers:
        try:
            disk.pwrite(content(number), number * PIECE)
            acknowledged.append(number)
        except nbd.Error as error:
            errors.append(errno.errorcode[error.errnum])
    return errors

acknowledged = []
if what == "write":
    # Again where nothing failed: a server that is idle gives back what it does not need, and the file system has room.
    for attempt in range(0, 2000, 100):
        # Few records, so that the journal's block has room for the next ones.
        errors = write(range(attempt, attempt + 5))
        assert not errors, f"there was room, and writes failed: {errors}"
        subprocess.run(["cp", "--reflink=always", f"{files}/disk.lacuna", f"{files}/copy"], check=True)
        filled = fill(f"{files}/filler")
        errors = write(range(attempt + 5, attempt + 100))
        if errors:
            break
        os.unlink(f"{files}/copy")
        os.unlink(f"{files}/filler")
    print(f"{filled} bytes were free; {len(acknowledged)} pieces were written, then came {' '.join(dict.fromkeys(errors))}")
    with open(notes, "w") as file:
        json.dump(acknowledged, file)
    assert errors, "no write failed, whenever the file system was full"
    assert errors[0] == "ENOSPC", f"the first error is {errors[0]}"
    assert disk.pread(PIECE, 0) == content(0), "what was written cannot be read"
else:
    for number in json.load(open(notes)):
        assert disk.pread(PIECE, number * PIECE) == content(number), f"piece {number} is lost"
PYTHON
}

for round in $(seq "$rounds"); do
  start_server "$plugin" "store=$store" size=16M || exit 1
  if ! check "round $round: the store is copied, the file system is filled, writes go on, and the server lives" \
    client write "$round"; then
    # For a signal: 128 and its number.
    if has_ended "$server_pid"; then
      wait "$server_pid"
      printf '# the server has ended, with status %d\n' $?
      server_pid=''
    fi
    exit 1
  fi
  sed 's/^/# /' "$work/check.out"
  # Without room it cannot end with a checkpoint: the next start does what is left.
  kill -KILL "$server_pid"
  wait "$server_pid" 2>/dev/null
  server_pid=''
  rm "$work/files/copy" "$work/files/filler"
  start_server "$plugin" "store=$store" || exit 1
  check "round $round: with room again, all that was acknowledged is there" client read "$round"
  stop_server "round $round: the server ends cleanly"
done
