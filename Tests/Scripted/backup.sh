#!/bin/bash
# docs/guides/backup.md: a chain of incremental qcow2 files from exports VOLUME@A..B is the volume's snapshots, also after sizes were
# changed, a rollback, and deaths of the server; and it can be restored.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need "backups" qemu-img nbdkit

lacuna=$(dirname "$plugin")/lacuna
store=$work/s.lacuna
image() { printf 'nbd+unix:///%s?socket=%s' "$1" "$server_socket"; }
serve() { start_server "$plugin" "store=$store" || exit 1; }
# A process that is killed merges nothing.
die_and_serve() {
  kill -KILL "$server_pid"
  wait "$server_pid" 2>/dev/null
  serve
}
# change "OFFSET LENGTH [zero|trim]"...: writes random bytes, or takes bytes away.
change() {
  python3 - "$(image vm1)" "$@" <<'PYTHON'
import os, sys
import nbd
handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
for words in map(str.split, sys.argv[2:]):
    offset, length = int(words[0]), int(words[1])
    if words[2:] == ["zero"]:
        handle.zero(length, offset, nbd.CMD_FLAG_NO_HOLE)
    elif words[2:] == ["trim"]:
        handle.trim(length, offset)
    else:
        # A request has 2 MiB at most.
        for start in range(0, length, 1 << 20):
            handle.pwrite(os.urandom(min(1 << 20, length - start)), offset + start)
handle.flush()
handle.shutdown()
PYTHON
}
# back_up NAME [OLDER]: takes the snapshot NAME and makes NAME.qcow2 of it, with OLDER.qcow2 behind it; compares both.
back_up() {
  "$lacuna" snapshot "$store" "vm1@$1" >/dev/null || return 1
  if [ $# -eq 1 ]; then
    qemu-img convert -O qcow2 "$(image "vm1@$1")" "$work/$1.qcow2" || return 1
  else
    qemu-img convert -O qcow2 -B "$2.qcow2" -F qcow2 "$(image "vm1@$2..$1")" "$work/$1.qcow2" || return 1
  fi
  qemu-img compare "$work/$1.qcow2" "$(image "vm1@$1")"
}
# when_unused VERB...: what is refused while clients are connected, of whom the server may not know yet that they have gone.
when_unused() { wait_until 30 "$lacuna" "$@"; }
mebi=$((1 << 20))
size_of() { stat -c %s "$work/$1.qcow2"; }

"$lacuna" create "$store" --volume vm1 --size 64M >/dev/null
serve
change "0 $((10 * mebi))" "$((40 * mebi)) $((4 * mebi))" "$((60 * mebi + 7)) 5000"
check "the first backup is the snapshot" back_up mon
die_and_serve
change "$((2 * mebi)) $mebi" "$((3 * mebi)) $mebi zero" "$((40 * mebi)) $((2 * mebi)) trim" "12345 678"
check "an increment on it is the next one" back_up tue mon
check_at_most "which takes what was changed" $((3 * mebi)) "$(size_of tue)"
check "nothing more is needed of the older snapshot" when_unused delete "$store" vm1@mon --yes
check "the volume grows" "$lacuna" resize "$store" vm1 96M
change "$((95 * mebi)) $mebi" "$((30 * mebi)) $mebi"
die_and_serve
check "an increment is right also after the volume grew" back_up wed tue
check_at_most "and takes no more for that" $((4 * mebi)) "$(size_of wed)"
check "the volume shrinks" when_unused resize "$store" vm1 32M --yes
change "$((31 * mebi)) 4096"
check "an increment is right also after it shrank" back_up thu wed
check "the volume is rolled back" when_unused rollback "$store" vm1@tue --yes
change "$((50 * mebi)) $mebi"
check "an increment is right also after a rollback" back_up fri thu

check "a volume is made to restore to" "$lacuna" create "$store" --volume restored --size 64M
check "the last backup goes into it" \
  qemu-img convert -n --target-is-zero -O raw "$work/fri.qcow2" "$(image restored)"
check "the restored volume is the snapshot" qemu-img compare "$(image restored)" "$(image vm1@fri)"
check "a whole file takes the place of an increment" qemu-img convert -O qcow2 "$work/tue.qcow2" "$work/full.qcow2"
check "the chain goes on from it" qemu-img rebase -u -b full.qcow2 -F qcow2 "$work/wed.qcow2"
rm "$work/mon.qcow2" "$work/tue.qcow2"
check "and is what it was" qemu-img compare "$work/fri.qcow2" "$(image vm1@fri)"
check "the store is sound" "$lacuna" check "$store"
stop_server "the server ends"
