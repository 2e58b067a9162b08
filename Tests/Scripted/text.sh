#!/bin/bash
# Nothing that others wrote reaches a terminal, a log or a shell as something else than text: names in stores, paths, names of processes,
# what servers and clients say.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-hold.sh
. "$(dirname "$0")/lib-hold.sh"
need "text of others" python3 jq nbdkit nbdinfo script
lacuna=${LACUNA_COMMAND:-$(dirname "$plugin")/lacuna}
export LACUNA_PLUGIN=$plugin
cd "$work" || exit 1
# shellcheck disable=SC2317 # finish() calls it
clean_up() { release; }

# seen COMMAND...: runs it, and keeps what it prints in `out`; all of it, and what else people see, goes to `all`.
: >all
seen() {
  timeout 60 "$@" >out 2>&1
  local status=$?
  cat out >>all
  return "$status"
}

escape=$'\e[31m' bidi=$'\u202e' c1=$'\u009b' mark=$'\u0301' line=$'\u2028'
nasty="it's $escape$bidi$c1${line}x'$mark\"$mark"$'\r\n'"lacuna: a forged line"
visible="it's \\u{1b}[31m\\u{202e}\\u{9b}\\u{2028}x'\\u{301}\"\\u{301}\\r\\nlacuna: a forged line"

# --- Paths on the command line

store="$nasty.lacuna"
check "a store may have any path" seen "$lacuna" create "$store" --size 1M
check_equal "its path is told in one line" \
  "Made the store $visible.lacuna with the volume disk, 1 MiB (1048576 bytes)" "$(cat out)"
seen "$lacuna" info "$store"
check "info shows it" grep -qF "$visible.lacuna" out
seen "$lacuna" info "no$nasty"
check_equal "so does an error, in one line" "1 1" \
  "$(grep -cF "there is no store no$visible;" out) $(wc -l <out)"
seen "$lacuna" "$nasty"
check "and one of the command line" grep -qF "\\u{1b}[31m\\u{202e}\\u{9b}" out
check_equal "for programs, JSON has what it was" "$work/$store" "$("$lacuna" info "$store" --json | jq -r .path)"
seen "$lacuna" info "$store" --json
check "and for people what one sees" \
  grep -qF "it's \\u001b[31m\\u202e\\u009b\\u2028x'\\u0301\\\"\\u0301\\r\\n" out
timeout 60 "$lacuna" info "$store" "$nasty" --json 2>error
cat error >>all
# shellcheck disable=SC2016 # jq's own
check "an error in JSON too" jq -e --arg name "$nasty" '.error.message | contains($name)' error

seen "$lacuna" stats "$store" --prometheus
label='x'"'"'\\u{301}\"\\u{301}\\r\nlacuna: a forged line.lacuna"'
check "a label of Prometheus ends where it ends" grep -qF "$label,operation=\"read\"} 0" out
check_equal "and each line of these is one" 0 "$(grep -cvE '^(# |lacuna_[a-z_]+\{.*\} [0-9])' out)"

# --- Words for a shell

seen "$lacuna" serve "$store" --dry-run -- "log=it's" "x=$bidi"
check_equal "a command line is one line" 1 "$(wc -l <out)"
for shell in bash zsh; do
  if ! command -v "$shell" >/dev/null; then
    skip "$shell reads a command line back" "$shell is not installed"
    continue
  fi
  # shellcheck disable=SC2016 # the other shell expands it
  "$shell" -c 'eval "set -- $(cat out)"; printf "%s\0" "$@"' >words
  for word in "store=$store" "log=it's" "x=$bidi"; do
    found=$(word=$word python3 -c 'import os; print(open("words", "rb").read().split(b"\0").count(os.environb[b"word"]))')
    check_equal "$shell reads the same word back: ${#word} characters" 1 "$found"
  done
done

# One that is no letter's stands beside what it was on; one that is a letter's is seen, and needs no escape.
marked="it's '$mark; touch FILE #" accented=$'it\'s e\u0301'
for word in "$marked" "$accented"; do
  "$lacuna" create "$word" --size 1M >made 2>&1
  seen "$lacuna" serve "$word" --dry-run
  # shellcheck disable=SC2016 # the other shell expands it
  bash -c 'eval "set -- $(cat out)"; printf "%s\n" "$@"' >words
  check "a mark hides no apostrophe from a shell" grep -qxF "store=$word" words
done
check "a letter with its mark is as it was" grep -qF "'store=it'\\''s e$mark'" out
check_equal "nothing was run" "" "$(ls FILE 2>/dev/null)"

# --- Names in a store

"$lacuna" create forged.lacuna --volume a --size 1M >made
"$lacuna" create forged.lacuna --volume b --size 1M >>made
python3 "$scripted_folder/forge_names.py" forged.lacuna a '\x1b]0;x\x07\u202e\u009b\nb  9 GiB' b "'\\u0301\\r\\n" || exit 1
for verb in list "list --space" check "info a" stats "dump 0" "dump 2"; do
  # shellcheck disable=SC2086 # words
  seen "$lacuna" ${verb%% *} forged.lacuna ${verb#"${verb%% *}"}
done
seen "$lacuna" list forged.lacuna
check_equal "a table has a line for each volume" 3 "$(wc -l <out)"
check "with its name" grep -qF "\\u{1b}]0;x\\u{7}\\u{202e}\\u{9b}\\nb  9 GiB" out
seen "$lacuna" check forged.lacuna
check_equal "the check tells of both names" 2 "$(grep -c 'its name has U+' out)"
block=$("$lacuna" dump forged.lacuna 0 --json | jq -r '.text' | grep -o 'tree of inodes: block [0-9]*' | grep -o '[0-9]*$')
seen "$lacuna" dump forged.lacuna "$block"
check_equal "a dump has a line for each record" 2 "$(grep -c 'bytes.*created' out)"

# --- What a server says, and how a process is called

"$lacuna" create held.lacuna --volume a --size 1M >made
hold held.lacuna --comm 'x\x1b[2J\n\u202e)'
seen "$lacuna" list held.lacuna
check_equal "an error shows how a process is called, in one line" "1 1" \
  "$(grep -cF "(x\\u{1b}[2J\\n\\u{202e}))" out) $(wc -l <out)"
release

{
  jq -nc '{jsonrpc: "2.0", method: "progress", params: {id: "I", stage: "\u001b]0;x\u0007\r\n\u202eread", done: 1, total: 2, unit: "blocks"}}'
  jq -nc '{jsonrpc: "2.0", id: "I", error: {code: -32000, message: "x\u001b[2J\nlacuna: \u202ey", data: {code: "failed", errno: 5}}}'
} | sed 's/"I"/ID/' >answers
hold held.lacuna --listen answers
seen "$lacuna" check held.lacuna --progress=json
check "a phase in JSON is escaped" grep -qF '"phase":"\u001b]0;x\u0007\r\n\u202eread"' out
check_equal "a server's error is one line" "1" "$(grep -c '^lacuna: x\\u{1b}\[2J\\nlacuna: \\u{202e}y' out)"
TERM=dumb script -qec "'$lacuna' check held.lacuna --progress=bar" /dev/null >bar </dev/null
check "a bar has no other controls than its own" grep -qaF $'\r?]0;x????read [' bar
release

# --- What a client asks for

start_server "$plugin" "store=$work/forged.lacuna"
timeout 20 nbdinfo "nbd+unix:///x%1b%5b2J%e2%80%ae%c2%9b?socket=$server_socket" >/dev/null 2>&1
# With the apostrophe and the mark, and the two ends of a line.
timeout 20 nbdinfo "nbd+unix:///y'%cc%81%0d%0anbdkit:%20forged?socket=$server_socket" >/dev/null 2>&1
stop_server "the server ends"
cat server.log >>all
check "the log shows what was asked for" grep -qF "x\\u{1b}[2J\\u{202e}\\u{9b}" server.log
check "in one line" grep -qF "y'\\u{301}\\r\\nnbdkit: forged" server.log

# --- All of it

check_equal "nothing that one does not see has come through" "" "$(python3 - all <<'PYTHON'
import sys, unicodedata
text = open(sys.argv[1], "rb").read().decode()
print(*sorted({f"U+{ord(c):04X}" for c in text if c not in "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}))
PYTHON
)"
