#!/bin/bash
# The plugin on nbdkit's command line: what it tells, how it starts, and what it says to wrong parameters.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need "command line" nbdkit nbdinfo

dump=$(timeout 20 nbdkit "$plugin" --dump-plugin 2>&1)
has_line() { grep -qxF -e "$1" <<<"$dump"; }
check "dump-plugin names the plugin" has_line name=lacuna
check "dump-plugin shows the parallel thread model" has_line thread_model=parallel
version=$(sed -n 's/^version=//p' <<<"$dump")
check "dump-plugin shows the library's version" has_line "lacuna_version=$version"
check "dump-plugin lists the engines" has_line lacuna_engines=extent,chain,bytes

help=$(timeout 20 nbdkit "$plugin" --help 2>&1)
help_shows() { grep -qF -e "$1" <<<"$help"; }
for word in memory= engine= "${memory_engines[@]}"; do check "the help shows $word" help_shows "$word"; done

# refuse NAME PARAMETER...: one line on standard error, the plugin's or nbdkit's own, and status 1.
refuse() {
  local name=$1 status lines
  shift
  timeout 20 nbdkit -U - "$plugin" "$@" --run true 2>"$work/refusal"
  status=$?
  lines=$(wc -l <"$work/refusal")
  if [ "$status" -eq 1 ] && [ "$lines" -eq 1 ] && grep -q '^nbdkit: .' "$work/refusal"; then
    ok "$name is refused in one line"
  else
    not_ok "$name is refused in one line" "status $status" "$(cat "$work/refusal")"
  fi
}
refuse "no parameter"
refuse "an unknown parameter" memory=64M colour=blue
refuse "a parameter without a name" memory=64M somewhere
refuse "an engine without a size" engine=extent
refuse "an unknown engine" memory=64M engine=btree
refuse "an empty engine" memory=64M engine=
refuse "a size given twice" memory=64M memory=64M
refuse "an engine given twice" memory=64M engine=extent engine=extent
for size in '' 10X 0 0K -1 -1G 1.5G ' 64M ' 0x10000000000000000 8E 9223372036854775808 18446744073709551615 \
  18446744073709551616 99999999999999999999 64MB 64M64M '%s%s%n'; do
  refuse "memory='$size'" "memory=$size"
done

# The smallest and the largest sizes; the largest may be more than the machine has addresses for, said in one line.
for engine in "${memory_engines[@]}"; do
  check "engine=$engine serves 1 byte" timeout 20 nbdkit -U - "$plugin" memory=1 "engine=$engine" --run true
  for size in 1P 7E 9223372036854775807; do
    timeout 20 nbdkit -U - "$plugin" "memory=$size" "engine=$engine" --run true 2>"$work/refusal"
    status=$?
    name="engine=$engine memory=$size works or is refused in one line"
    if [ "$status" -eq 0 ] && [ ! -s "$work/refusal" ]; then
      ok "$name"
    elif [ "$status" -eq 1 ] && [ "$(wc -l <"$work/refusal")" -eq 1 ]; then
      ok "$name"
    else
      not_ok "$name" "status $status" "$(cat "$work/refusal")"
    fi
  done
done

# Ways to start: by socket activation, on standard input and output, in the background.
size_by() { timeout 20 nbdinfo --size "$@"; }
check_equal "socket activation works" 67108864 "$(size_by -- [ nbdkit "$plugin" memory=64M ] 2>&1)"
check "standard input and output work" timeout 20 python3 -c '
import nbd, sys
h = nbd.NBD()
h.connect_command(["nbdkit", "-s", "--exit-with-parent", sys.argv[1], "memory=64M"])
h.pwrite(b"lacuna", 5)
assert h.pread(6, 5) == b"lacuna"
h.shutdown()' "$plugin"

nbdkit -U "$work/background.sock" -P "$work/background.pid" "$plugin" memory=64M 2>"$work/background.log"
check_equal "nbdkit goes into the background" 0 $?
if wait_until 20 test -s "$work/background.pid"; then
  background_pid=$(cat "$work/background.pid")
  check "a server in the background answers from several threads" timeout 60 python3 -c '
import nbd, sys
handles = []
for _ in range(4):
    h = nbd.NBD()
    h.connect_unix(sys.argv[1])
    handles.append(h)
for round in range(100):
    for index, h in enumerate(handles):
        h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([round + index] * 5000)), index * 5000)
    for h in handles:
        while h.aio_in_flight() > 0: h.poll(-1)
for index, h in enumerate(handles):
    assert handles[3 - index].pread(5000, index * 5000) == bytes([99 + index] * 5000)
for h in handles: h.shutdown()' "$work/background.sock"
  kill -TERM "$background_pid"
  check "a server in the background ends when told to" wait_until 20 has_ended "$background_pid"
  check_equal "a server in the background has nothing to complain of" "" "$(cat "$work/background.log")"
else
  not_ok "a server in the background writes its process number" "$(cat "$work/background.log")"
fi
