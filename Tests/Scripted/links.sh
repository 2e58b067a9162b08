#!/bin/bash
# Files that a server writes in folders of other users: nothing is written through a link, to somebody else's file, or to what is no file.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need links nbdkit nbdinfo setpriv mkfifo
if [ "$(id -u)" -ne 0 ]; then
  skip links "being two users takes root"
  exit 0
fi

program=${LACUNA_COMMAND:-$repository/.build/release/lacuna}
export LACUNA_PLUGIN=$plugin
stranger=54321
chmod 755 "$work"
started=() loop=''
# shellcheck disable=SC2317 # finish() calls it
clean_up() {
  local pid
  for pid in "${started[@]}"; do kill -KILL "$pid" 2>/dev/null; done
  if [ -n "$loop" ]; then losetup --detach "$loop"; fi
  if [ -d "$work/mounted" ]; then umount "$work/mounted" 2>/dev/null; fi
}

# What must not change, in a folder of root's; and the stranger's folder, with links to it.
mkdir -m 755 "$work/own" "$work/theirs" "$work/sticky"
chmod 1777 "$work/sticky"
printf 'precious\n' >"$work/own/file"
chmod 644 "$work/own/file"
picture() { (cd "$work/own" && find . -printf '%p %y %m %U %s %l\n' | sort && cat file); }
before=$(picture)
chown "$stranger" "$work/theirs"
store=$work/s.lacuna
check "a store is made" "$program" create "$store" --size 16M || exit 1

# start ARGUMENT...: `lacuna serve` in the background by itself; sets `status`, and `pid` where it serves.
start() {
  timeout 60 "$program" serve "$store" --background --socket "$work/nbd" "$@" >"$work/out" 2>"$work/error"
  status=$?
  pid=$(sed -n 's/^process: *//p' "$work/out")
  if [ -n "$pid" ]; then started+=("$pid"); fi
}
stop() {
  check "it stops" "$program" stop "$store"
  pid=''
}
# start_is_refused NAME WORDS ARGUMENT...
start_is_refused() {
  local name=$1 words=$2 missing='' word
  shift 2
  start "$@"
  while IFS= read -r word; do
    grep -qF -e "$word" "$work/error" || missing+=" '$word'"
  done <<<"$words"
  if [ "$status" -eq 1 ] && [ -z "$missing" ]; then
    ok "$name"
  else
    not_ok "$name" "status $status, missing:$missing" "$(cat "$work/error" "$work/out")"
  fi
  if [ -n "$pid" ]; then stop; fi
  check_equal "nothing of root's has changed" "$before" "$(picture)"
}

for folder in theirs sticky; do
  place=$work/$folder
  setpriv --reuid "$stranger" --regid "$stranger" --clear-groups bash -c "
    ln -s '$work/own/file' '$place/link'
    ln -s '$work/own/new' '$place/dangling'
    ln -s '$work/own' '$place/folder'
    mkfifo '$place/fifo'
    echo mine >'$place/file'
  "
  for option in --log --pidfile; do
    start_is_refused "$folder: $option does not follow a link" $'it is a symbolic link\nchoose another file with '"$option" \
      "$option" "$place/link"
    start_is_refused "$folder: $option makes nothing behind a link" $'it is a symbolic link\nchoose another file with '"$option" \
      "$option" "$place/dangling"
    start_is_refused "$folder: $option follows no link to a folder" $'\'folder\' in that path is a symbolic link of the user\nuid '"$stranger" \
      "$option" "$place/folder/file"
    start_is_refused "$folder: $option makes nothing in such a folder" $'\'folder\' in that path is a symbolic link of the user\nuid '"$stranger" \
      "$option" "$place/folder/new"
    start_is_refused "$folder: $option does not wait for a pipe" $'belongs to the user\nuid '"$stranger" "$option" "$place/fifo"
    start_is_refused "$folder: $option does not write to a stranger's file" $'belongs to the user\nuid '"$stranger" \
      "$option" "$place/file"
    check_equal "$folder: which is as it was" mine "$(cat "$place/file")"
  done
done

# --- What else is refused, and what is fine

mkfifo "$work/fifo"
ln "$work/own/file" "$work/second"
mkdir "$work/real"
ln -s "$work/real" "$work/way"
for option in --log --pidfile; do
  start_is_refused "$option is no pipe of the own user's either" $'is no regular file\nchoose another file' "$option" "$work/fifo"
  start_is_refused "$option is no folder" "" "$option" "$work/real"
  start_is_refused "$option is in no folder that is not there" "No such file or directory" "$option" "$work/no/file"
  start_is_refused "$option is no file with another name" $'has other names too\nchoose another file' "$option" "$work/second"
done
rm "$work/second"
echo "what was there" >"$work/real/log"
start --log "$work/way/log" --pidfile "$work/way/pid"
check_equal "behind a link of the own user's to a folder it serves" 0 "$status"
check_equal "with its number in the file" "$pid" "$(cat "$work/real/pid")"
check_equal "which is for its owner alone" 600 "$(stat --format %a "$work/real/pid")"
check_equal "and its log behind what was there" "what was there" "$(head -n 1 "$work/real/log")"
check "and not instead of it" test "$(wc -l <"$work/real/log")" -ge 2
stop
has_no_pidfile() { [ ! -e "$work/real/pid" ]; }
check "the number goes with it" wait_until 10 has_no_pidfile
start --log "$work/real/new"
check_equal "a new log is for its owner alone" 600 "$(stat --format %a "$work/real/new")"
stop
# A device of this test's own, so that a fault costs the machine nothing.
if mknod -m 666 "$work/real/null" c 1 3 2>"$work/mknod"; then
  start --log "$work/real/null" --pidfile "$work/real/null"
  check_equal "the log may be such a device as /dev/null, and the number too" 0 "$status"
  stop
  check_equal "which is a device still" "character special file" "$(stat --format %F "$work/real/null")"
else
  skip "a device such as /dev/null" "$(cat "$work/mknod")"
fi
start --log /dev/fd/7 7>"$work/real/seven"
check_equal "or a file that is open" 0 "$status"
check "which has it" grep -q Serving "$work/real/seven"
stop
start --pidfile "$work/real/pid"
rm "$work/real/pid" && echo other >"$work/real/pid"
stop
check "a file that took the place of its number stays" grep -qx other "$work/real/pid"

# --- Folders of sockets and logs

mkdir -m 700 "$work/runtime"
chown "$stranger" "$work/runtime"
memory() {
  XDG_RUNTIME_DIR=$1 timeout 60 "$program" serve --background -- memory=1M >"$work/out" 2>"$work/error"
  status=$?
  pid=$(sed -n 's/^process: *//p' "$work/out")
  if [ -n "$pid" ]; then started+=("$pid"); fi
  log=$(sed -n 's/^log: *//p' "$work/out")
  kill "$pid"
  wait_until 20 has_ended "$pid"
}
memory "$work/runtime"
check_equal "a runtime folder of another user's is not used" "0 /tmp" "$status $(dirname "$(dirname "$log")")"
check_equal "and nothing is in it" "" "$(ls -A "$work/runtime")"
chown 0 "$work/runtime"
chmod 777 "$work/runtime"
memory "$work/runtime"
check_equal "nor one that others may write to" "0 /tmp" "$status $(dirname "$(dirname "$log")")"
chmod 700 "$work/runtime"
memory "$work/runtime"
check_equal "but one's own is" "0 $work/runtime" "$status $(dirname "$(dirname "$log")")"

# A store on a block device has its sockets there.
if truncate --size 64M "$work/disk" && loop=$(losetup --find --show "$work/disk" 2>"$work/losetup") \
  && mknod -m 600 "$work/device" b "$(stat --format %Hr "$loop")" "$(stat --format %Lr "$loop")"; then
  mkdir -m 700 "$work/user"
  chown 54322 "$work/user" "$work/device"
  on_device() {
    rm -rf "$work/user/lacuna"
    "$@"
    XDG_RUNTIME_DIR=$work/user setpriv --reuid 54322 --regid 54322 --clear-groups timeout 60 nbdkit -U - "$plugin" \
      "store=$work/device" size=1M --run 'echo served' 2>&1
  }
  check_equal "it makes the folder" served "$(on_device true)"
  check_equal "for its user alone" "700 54322" "$(stat --format '%a %u' "$work/user/lacuna/dev")"
  theirs() { mkdir "$work/user/lacuna" && chown "$stranger" "$work/user/lacuna"; }
  open() { mkdir -p "$work/user/lacuna/dev" && chown -R 54322 "$work/user/lacuna" && chmod 777 "$work/user/lacuna/dev"; }
  link() { ln -s "$work/own" "$work/user/lacuna"; }
  check "a stranger's is refused" grep -q "$work/user/lacuna, where .* belongs to the user .*uid $stranger" <(on_device theirs)
  check "and one that others may write to" grep -q "others may write to the folder $work/user/lacuna/dev" <(on_device open)
  check "and a link" grep -q "$work/user/lacuna, where .* is no folder" <(on_device link)
  check_equal "nothing of root's has changed" "$before" "$(picture)"
else
  skip "the folder of a store on a block device" "no loop device can be had"
fi

# --- Links to stores, which the kernel follows or does not

ln -s "$store" "$work/link.lacuna"
check "a store behind a link" "$program" info "$work/link.lacuna"
ln -s "$work/own/made.lacuna" "$work/theirs/made.lacuna"
if "$program" create "$work/theirs/made.lacuna" --size 1M >"$work/out" 2>&1; then
  not_ok "no store is made behind a link" "$(cat "$work/out")"
else
  check "no store is made behind a link" grep -q "is a symbolic link" "$work/out"
fi
if nbdkit -U - "$plugin" "$work/theirs/made.lacuna" size=1M --run true >"$work/out" 2>&1; then
  not_ok "nor by the plugin" "$(cat "$work/out")"
else
  check "nor by the plugin" grep -q "is a symbolic link" "$work/out"
fi
check_equal "nothing of root's has changed" "$before" "$(picture)"
# A mount on which the kernel follows no link at all stands for its rules for sticky folders, which are a setting of the machine.
mkdir "$work/mounted"
if mount -t tmpfs -o nosymfollow tmpfs "$work/mounted" 2>"$work/mount"; then
  ln -s "$store" "$work/mounted/link.lacuna"
  for words in info serve; do
    if timeout 60 "$program" "$words" "$work/mounted/link.lacuna" >"$work/out" 2>&1; then
      not_ok "$words follows no link that the kernel does not follow" "$(cat "$work/out")"
    else
      check "$words follows no link that the kernel does not follow" grep -Eq "symbolic link|there is no store" "$work/out"
    fi
  done
  if nbdkit -U - "$plugin" "$work/mounted/link.lacuna" --run true >"$work/out" 2>&1; then
    not_ok "nor does the plugin" "$(cat "$work/out")"
  else
    check "nor does the plugin" grep -q "symbolic link" "$work/out"
  fi
else
  skip "links that the kernel does not follow" "$(cat "$work/mount")"
fi
