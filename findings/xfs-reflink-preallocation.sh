#!/usr/bin/env bash
# XFS, a reflink copy, a full file system: what was written before can no longer be overwritten, and what was only preallocated can.
#
# The guess: `cp --reflink=always` shares all blocks of a file, those too that fallocate(2) got and nobody has written; so on a full file
# system each of them fails with ENOSPC, or, if space once given stays given, none does.
# What happens: the copy has a hole where the original is preallocated. The written blocks are shared, and overwriting one needs a new
# block: ENOSPC. The preallocated ones still belong to the original alone, and writing there succeeds.
#
# It matters to whoever counts on overwriting in place needing no space, as a journal in a file does: a copy that somebody makes of it
# takes that away for what has been used, and leaves it for what has not.
#
# Seen with Linux 6.18 and xfsprogs 6.1.0 (Debian 12), which this script takes from Debian; the kernel is that of the machine:
#
#   the original, bytes shared: 4194304
#   the original, bytes preallocated: 4194304
#   the original, bytes preallocated and shared: 0
#   the copy, bytes shared: 4194304
#   the copy, bytes preallocated: 0
#   overwriting what was written: No space left on device
#   writing what was preallocated: done
#
# It needs root, loop devices and XFS in the kernel; without them it ends with 77. It fails where the behaviour is another.
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
for package in xfsprogs=6.1.0-1 libinih1=55-1 liburcu8=0.13.2-1; do
  apt-get download -qq "$package" >download.log 2>&1 || skip "$package cannot be downloaded: $(tail -n 1 download.log)"
done
for file in *.deb; do dpkg-deb --extract "$file" packages; done
library_path=$(find "$folder/packages" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)

truncate --size=512M image
LD_LIBRARY_PATH=$library_path packages/sbin/mkfs.xfs -q -m reflink=1 image
mkdir mount
mount -o loop image mount || skip "an image of XFS cannot be mounted"
mounted=true

head -c 4M /dev/urandom >mount/original
fallocate --offset 4M --length 4M mount/original
sync mount/original
cp --reflink=always mount/original mount/copy
sync mount/copy

# Bytes of a file's extents that have all of the words given, as filefrag(8) names them.
extent_bytes() {
  local file=$1 total=0 line word
  shift
  while IFS= read -r line; do
    for word in "$@"; do [[ $line == *"$word"* ]] || continue 2; done
    [[ $line =~ \.\.\ *[0-9]+:\ *[0-9]+\.\.\ *[0-9]+:\ *([0-9]+): ]] && total=$((total + BASH_REMATCH[1] * 4096))
  done < <(filefrag -v "$file")
  printf '%s\n' "$total"
}

failed=0
expect() {
  if [[ $2 == "$3" ]]; then
    printf '%s: %s\n' "$1" "$3"
  else
    printf 'CHANGED, %s: %s, not %s\n' "$1" "$3" "$2"
    failed=1
  fi
}

expect "the original, bytes shared" $((4 << 20)) "$(extent_bytes mount/original shared)"
expect "the original, bytes preallocated" $((4 << 20)) "$(extent_bytes mount/original unwritten)"
expect "the original, bytes preallocated and shared" 0 "$(extent_bytes mount/original unwritten shared)"
expect "the copy, bytes shared" $((4 << 20)) "$(extent_bytes mount/copy shared)"
expect "the copy, bytes preallocated" 0 "$(extent_bytes mount/copy unwritten)"

# To the last block, in pieces that become smaller.
for size in 1M 64k 4k 512; do dd if=/dev/zero of="mount/fill.$size" bs="$size" status=none 2>/dev/null || true; done
sync

overwrite() {
  local message
  if message=$(dd if=/dev/urandom of=mount/original bs=64k count=1 seek="$1" oflag=seek_bytes conv=notrunc,fsync \
    status=none 2>&1); then
    echo "done"
  else
    printf '%s\n' "${message##*: }"
  fi
}
expect "overwriting what was written" "No space left on device" "$(overwrite 1M)"
expect "writing what was preallocated" "done" "$(overwrite 5M)"
exit "$failed"
