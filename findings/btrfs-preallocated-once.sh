#!/usr/bin/env bash
# btrfs, a full file system: space that fallocate(2) gave a file is there for the first write to each block, and not for the second.
#
# The guess: POSIX has posix_fallocate(3) promise that later writes to the range do not fail for want of space, and btrfs implements
# fallocate(2); so a file that was preallocated can be overwritten on a full file system as often as one likes, as on ext4 and XFS.
# What happens: the first pass of writes goes into the preallocated extents. Each later one is copied on write to new blocks, which
# a full file system has not got: ENOSPC, though the file has not grown and nothing else wrote. With the attribute NOCOW, set on the
# empty file, all passes succeed.
#
# It matters to whoever overwrites a file in place and counts on that needing no room: a journal, a ring, a database's log.
#
# Seen with Linux 6.18 and btrfs-progs 6.2 (Debian 12), which this script takes from Debian; the kernel is that of the machine:
#
#   as it is made, pass 1: done
#   as it is made, pass 2: No space left on device
#   with NOCOW, pass 1: done
#   with NOCOW, pass 2: done
#   with NOCOW, pass 3: done
#
# It needs root, loop devices and btrfs in the kernel; without them it ends with 77. It fails where the behaviour is another.
set -euo pipefail

folder=$(mktemp -d)
mounted=false
# shellcheck disable=SC2317 # called by the trap
clean_up() {
  if $mounted; then umount "$folder/mount"; fi
  rm -rf "$folder"
}
trap clean_up EXIT

skip() {
  printf 'skipped: %s\n' "$1"
  exit 77
}

((EUID == 0)) || skip "it needs root"
cd "$folder"
for package in btrfs-progs=6.2-1+deb12u2 liblzo2-2=2.10-2; do
  apt-get download -qq "$package" >download.log 2>&1 || skip "$package cannot be downloaded: $(tail -n 1 download.log)"
done
for file in *.deb; do dpkg-deb --extract "$file" packages; done
library_path=$(find "$folder/packages" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
mkdir mount

failed=0
expect() {
  if [[ $2 == "$3" ]]; then
    printf '%s: %s\n' "$1" "$3"
  else
    printf 'CHANGED, %s: %s, not %s\n' "$1" "$3" "$2"
    failed=1
  fi
}

overwrite() {
  local message
  if message=$(dd if=/dev/urandom of=mount/file bs=1M count=64 conv=notrunc,fsync status=none 2>&1); then
    echo "done"
  else
    printf '%s\n' "${message##*: }"
  fi
}

# A full file system with a preallocated file of 64 MiB; the argument says how the empty file is treated first.
prepare() {
  rm -f image
  truncate --size=256M image
  LD_LIBRARY_PATH=$library_path packages/sbin/mkfs.btrfs --quiet image >/dev/null
  mount -o loop image mount || skip "an image of btrfs cannot be mounted"
  mounted=true
  touch mount/file
  "$@" mount/file
  fallocate --length 64M mount/file
  sync
  # To the last block: what is written later may free a little of what metadata was promised.
  local round size
  for round in 1 2; do
    for size in 1M 64k 4k; do dd if=/dev/zero of="mount/fill.$round.$size" bs="$size" status=none 2>/dev/null || true; done
    sync
  done
}

prepare true
expect "as it is made, pass 1" "done" "$(overwrite)"
expect "as it is made, pass 2" "No space left on device" "$(overwrite)"
umount mount
mounted=false

prepare chattr +C
for pass in 1 2 3; do expect "with NOCOW, pass $pass" "done" "$(overwrite)"; done
exit "$failed"
