#!/bin/bash
# Images through nbdcopy and back, and what nbdinfo says of them.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need copying nbdcopy nbdinfo nbdkit jq cmp
size=$((96 * 1024 * 1024 + 1))
make_image "$work/image" "$size" 1
image_bytes=$(($(stat -c %b "$work/image") * 512))

second_pid=''
clean_up() { if [ -n "$second_pid" ]; then kill -TERM "$second_pid" 2>/dev/null; fi; }

# nbdcopy finds zeroes by blocks of 4096 bytes, and the file system's own blocks add to what a file takes.
room=$((image_bytes + 1024 * 1024))

for engine in "${engines[@]}"; do
  start_engine "$engine" "$size" || continue
  for what in connect flush fua trim zero cache df; do
    check "copying $engine: nbdinfo can $what" nbdinfo --can "$what" "$uri"
  done
  check "copying $engine: nbdinfo can multi-conn" nbdinfo --can multi-conn "$uri"
  check_equal "copying $engine: nbdinfo tells the size" "$size" "$(timeout 20 nbdinfo --size "$uri" 2>&1)"
  description=$(timeout 20 nbdinfo --list --json "$uri" | jq -r '.exports | length, .[0].description' 2>&1)
  check_equal "copying $engine: nbdinfo lists one export with a description" 1 "$(head -n 1 <<<"$description")"
  check "copying $engine: the description says something" test -n "$(tail -n +2 <<<"$description" | grep -v '^null$')"
  if [ "$engine" != bytes ]; then
    check_equal "copying $engine: a fresh volume has no data" 0 "$(allocated_bytes)"
  fi

  check "copying $engine: an image goes in" nbdcopy --connections=4 --requests=64 --flush "$work/image" "$uri"
  if [ "$engine" != bytes ]; then
    check_at_most "copying $engine: its holes stay holes" "$room" "$(allocated_bytes)"
    check "copying $engine: nbdinfo counts the holes" \
      grep -q 'hole,zero' <(timeout 20 nbdinfo --map --totals "$uri")
  fi
  check "copying $engine: the image comes out" nbdcopy "$uri" "$work/copy"
  check "copying $engine: it is the same" cmp "$work/image" "$work/copy"
  check_at_most "copying $engine: the copy is sparse" "$room" $(($(stat -c %b "$work/copy") * 512))

  # From one server to another.
  rm -f "$work/second.sock" "$work/second.pid"
  engine_parameters "$engine" "$size" second
  nbdkit -f -U "$work/second.sock" -P "$work/second.pid" "$plugin" "${parameters[@]}" \
    2>"$work/second.log" &
  second_pid=$!
  if wait_until 20 test -s "$work/second.pid"; then
    second="nbd+unix:///?socket=$work/second.sock"
    check "copying $engine: from one server to another" nbdcopy --flush "$uri" "$second"
    check "copying $engine: out of the second server" nbdcopy "$second" "$work/copy2"
    check "copying $engine: the second copy is the same" cmp "$work/image" "$work/copy2"
    if [ "$engine" != bytes ]; then
      check_at_most "copying $engine: the second server has holes too" "$room" "$(uri=$second allocated_bytes)"
    fi
  else
    not_ok "copying $engine: a second server starts" "$(cat "$work/second.log")"
  fi
  kill -TERM "$second_pid"
  wait "$second_pid"
  check_equal "copying $engine: the second server ends cleanly" 0 $?
  second_pid=''

  # A second image over the first: what became zero must be zero.
  make_image "$work/other" "$size" 2
  check "copying $engine: another image over the first" nbdcopy "$work/other" "$uri"
  check "copying $engine: the other image comes out" nbdcopy "$uri" "$work/copy"
  check "copying $engine: it is the other one" cmp "$work/other" "$work/copy"
  rm -f "$work/copy" "$work/copy2"
  stop_server "copying $engine: the server ends cleanly"
done
