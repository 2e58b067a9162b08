#!/bin/bash
# QEMU's own client, which has another view of the protocol: qemu-img compare, convert and map, and qemu-io.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need qemu qemu-img qemu-io nbdkit jq
size=$((64 * 1024 * 1024))
make_image "$work/image" "$size" 3

# io NAME COMMAND...: qemu-io's status does not tell of patterns that differ; its words do.
io() {
  local name=$1 arguments=() command output status
  shift
  for command in "$@"; do arguments+=(-c "$command"); done
  output=$(timeout 60 qemu-io -f raw "${arguments[@]}" "$uri" 2>&1)
  status=$?
  if [ "$status" -eq 0 ] && ! grep -qiE 'failed|error' <<<"$output"; then
    ok "$name"
  else
    not_ok "$name" "status $status" "$output"
  fi
}

for engine in "${engines[@]}"; do
  start_engine "$engine" "$size" || continue
  check_equal "qemu $engine: qemu-img sees the size" "$size" \
    "$(timeout 20 qemu-img info --output=json "$uri" | jq '.["virtual-size"]')"
  check "qemu $engine: an image goes in" qemu-img convert -n -f raw -O raw "$work/image" "$uri"
  check "qemu $engine: it compares equal" qemu-img compare -f raw -F raw "$work/image" "$uri"
  check "qemu $engine: into a qcow2 file" qemu-img convert -f raw -O qcow2 "$uri" "$work/image.qcow2"
  check "qemu $engine: the qcow2 file compares equal" qemu-img compare -f qcow2 -F raw "$work/image.qcow2" "$uri"
  if [ "$engine" != bytes ]; then
    check "qemu $engine: qemu-img map finds holes" jq -e 'any(.[]; .zero and (.data | not))' \
      <(timeout 20 qemu-img map -f raw --output=json "$uri")
  fi

  # A different image must compare different: the comparison itself works.
  io "qemu $engine: one byte is written" "write -q -P 0x5a 12345678 1"
  if timeout 60 qemu-img compare -f raw -F raw "$work/image" "$uri" >/dev/null 2>&1; then
    not_ok "qemu $engine: the changed byte is seen" "qemu-img compare finds no difference"
  else
    ok "qemu $engine: the changed byte is seen"
  fi

  io "qemu $engine: unaligned writes keep their neighbours" \
    "write -q -P 0x11 0 1M" "write -q -P 0x22 1000 3000" "read -q -P 0x11 0 1000" "read -q -P 0x22 1000 3000" \
    "read -q -P 0x11 4000 1044576"
  io "qemu $engine: zeroes, with and without unmapping" \
    "write -q -P 0x33 2M 2M" "write -q -z 2100000 500000" "read -q -P 0 2100000 500000" \
    "write -q -z -u 3M 512k" "read -q -P 0 3M 512k" "read -q -P 0x33 3670016 512k" "read -q -P 0x33 2M 2848"
  io "qemu $engine: FUA and flush" "write -q -f -P 0x44 5M 64k" "flush" "read -q -P 0x44 5M 64k"
  io "qemu $engine: discard" "write -q -P 0x55 8M 8M" "discard -q 8M 4M" "read -q -P 0x55 12M 4M"
  if [ "$engine" != bytes ]; then
    io "qemu $engine: discarded bytes are zero" "read -q -P 0 8M 4M"
  fi
  io "qemu $engine: requests in flight together" \
    "aio_write -q -P 0x61 16M 1M" "aio_write -q -P 0x62 17M 1M" "aio_write -q -P 0x63 18M 1M" "aio_flush" \
    "aio_read -q -P 0x61 16M 1M" "aio_read -q -P 0x62 17M 1M" "aio_read -q -P 0x63 18M 1M" "aio_flush"
  io "qemu $engine: the last bytes of the disk" "write -q -P 0x71 67108351 513" "read -q -P 0x71 67108351 513"
  io "qemu $engine: 32 MiB in one request" "write -q -P 0x72 16M 32M" "read -q -P 0x72 16M 32M"
  rm -f "$work/image.qcow2"
  stop_server "qemu $engine: the server ends cleanly"
done

start_engine extent "$size" -r && {
  output=$(timeout 20 qemu-io -f raw -c "write -P 1 0 512" "$uri" 2>&1)
  if grep -qi 'read-only\|permi' <<<"$output"; then
    ok "qemu: a read-only server cannot be written"
  else
    not_ok "qemu: a read-only server cannot be written" "$output"
  fi
  stop_server "qemu: the read-only server ends cleanly"
}
