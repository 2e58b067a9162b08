#!/bin/bash
# A real file system on a volume: ext4 on a loop device over nbdfuse, thousands of files, checksums, e2fsck, and the
# space that comes back after deleting and trimming.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need filesystem nbdfuse nbdinfo mkfs.ext4 e2fsck fstrim losetup fusermount3 jq
file_count=${LACUNA_FILE_COUNT:-4000}

fuse_pid='' loop='' is_mounted=''

unmount() {
  if [ -n "$is_mounted" ]; then
    timeout 60 umount "$work/files" || return
    is_mounted=''
  fi
  if [ -n "$loop" ]; then
    losetup --detach "$loop" || return
    # Detaching finishes in the background; nbdfuse must not go away before.
    wait_until 20 loop_is_free || return
    loop=''
  fi
}

loop_is_free() { [ -z "$(losetup --noheadings --output BACK-FILE "$loop" 2>/dev/null)" ]; }

stop_fuse() {
  if [ -z "$fuse_pid" ]; then return; fi
  fusermount3 -u "$work/fuse" || return
  wait_until 20 has_ended "$fuse_pid" || return
  fuse_pid=''
}

clean_up() {
  unmount
  stop_fuse
  if [ -n "$fuse_pid" ]; then kill -TERM "$fuse_pid" 2>/dev/null; fi
}

# start_fuse: the volume as the file $work/fuse/nbd.
start_fuse() {
  rm -f "$work/fuse.pid"
  nbdfuse --pidfile "$work/fuse.pid" "$work/fuse" --unix "$server_socket" 2>"$work/fuse.log" &
  fuse_pid=$!
  wait_until 20 test -s "$work/fuse.pid" -a -e "$work/fuse/nbd"
}

mount_volume() {
  loop=$(losetup --find --show "$work/fuse/nbd") || return
  mount -t ext4 "$loop" "$work/files" || return
  is_mounted=yes
}

# tree ARGUMENT...: makes a tree, or prints a digest of one. What is made is well above the 64 MiB of free blocks for which the
# stores in memory keep their memory.
tree() { python3 "$repository/Tests/EndToEnd/programs/tree.py" "$@"; }

resident_kilobytes() { awk '/^VmRSS:/ { print $2 }' "/proc/$server_pid/status"; }

if [ "$(id -u)" -ne 0 ]; then
  skip filesystem "mounting needs root"
  exit 0
fi
if [ ! -c /dev/fuse ] || [ ! -c /dev/loop-control ]; then
  skip filesystem "this machine has no /dev/fuse or no loop devices"
  exit 0
fi
mkdir "$work/fuse" "$work/files" "$work/tree"
truncate --size=16M "$work/probe"
if ! probe=$(losetup --find --show "$work/probe" 2>&1); then
  skip filesystem "no loop device can be had: $probe"
  exit 0
fi
losetup --detach "$probe"

tree make "$work/tree" "$file_count" 7
digest=$(tree digest "$work/tree")

run_engine() {
  local engine=$1 full_bytes full_memory empty_bytes empty_memory
  start_engine "$engine" 2G || return
  start_fuse || {
    not_ok "filesystem $engine: nbdfuse shows the volume" "$(cat "$work/fuse.log")"
    return
  }
  check "filesystem $engine: mkfs.ext4" mkfs.ext4 -q -F "$work/fuse/nbd" || return
  check "filesystem $engine: mounting it" mount_volume || return
  check "filesystem $engine: copying $file_count files" timeout 100 cp -a "$work/tree/." "$work/files" || return
  check "filesystem $engine: sync" timeout 60 sync -f "$work/files"
  check "filesystem $engine: unmounting it" unmount || return
  check "filesystem $engine: e2fsck finds nothing" e2fsck -f -n "$work/fuse/nbd"
  full_bytes=$(allocated_bytes)
  full_memory=$(resident_kilobytes)

  check "filesystem $engine: mounting it again" mount_volume || return
  check_equal "filesystem $engine: every file is as it was" "$digest" "$(tree digest "$work/files")"
  rm -rf "${work:?}/files"/[0-9]*
  # ext4 trims what is free in its journal's last commit.
  check "filesystem $engine: sync after deleting" timeout 60 sync -f "$work/files"
  check "filesystem $engine: fstrim" fstrim -v "$work/files"
  check "filesystem $engine: unmounting it again" unmount || return
  check "filesystem $engine: e2fsck finds nothing after the trim" e2fsck -f -n "$work/fuse/nbd"
  empty_bytes=$(allocated_bytes)
  empty_memory=$(resident_kilobytes)
  if [ "$engine" != bytes ]; then
    check_at_most "filesystem $engine: deleting and trimming frees four fifths" $((full_bytes / 5)) "$empty_bytes"
  fi
  if [ "$engine" != disk ]; then
    check_at_most "filesystem $engine: nbdkit's memory in KiB falls by a third at least" \
      $((full_memory * 2 / 3)) "$empty_memory"
  fi
  printf '# filesystem %s: %s -> %s bytes of data, %s -> %s KiB resident\n' \
    "$engine" "$full_bytes" "$empty_bytes" "$full_memory" "$empty_memory"
}

for engine in "${engines[@]}"; do
  run_engine "$engine"
  if unmount && stop_fuse; then
    ok "filesystem $engine: everything is unmounted"
  else
    not_ok "filesystem $engine: everything is unmounted" "$(cat "$work/fuse.log")"
  fi
  stop_server "filesystem $engine: the server ends cleanly"
done
