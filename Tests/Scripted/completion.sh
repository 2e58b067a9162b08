#!/bin/bash
# What a shell completes is only what is harmless: names of forged stores and of servers that lie are not offered, and a store that is
# held, or a server that does not answer or is somebody else's, costs a second at most.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-hold.sh
. "$(dirname "$0")/lib-hold.sh"
need "completion" python3
program=${LACUNA_COMMAND:-$(dirname "$plugin")/lacuna}
mkdir "$work/bin"
ln -s "$program" "$work/bin/lacuna"
PATH=$work/bin:$PATH
cd "$work" || exit 1
chmod 755 "$work"

# shellcheck disable=SC2317 # finish() calls it
clean_up() { release; }

# make_store STORE NAME...: with a volume for each name.
make_store() {
  local name
  lacuna create "$1" --volume "$2" --size 1M >make.log || return 1
  for name in "${@:3}"; do lacuna create "$1" --volume "$name" --size 1M >>make.log || return 1; done
}

# --- A real shell at a prompt

make_store forged.lacuna a b c d e f || exit 1
# shellcheck disable=SC2016 # names that a shell must not expand
check "a store with names that no program gives" \
  python3 "$scripted_folder/forge_names.py" forged.lacuna a '$(touch FILE)' b '`touch FILE`' c 'x\n$(touch FILE)\ny;touch FILE' \
  d '"\x27 ${IFS}$((FILE[$(touch FILE)]))' e '\u202e$(touch FILE)' f good
make_store plain.lacuna vm1 vm2 || exit 1
lacuna snapshot plain.lacuna vm1@monday >>make.log
lacuna snapshot plain.lacuna vm1@friday >>make.log

python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("plain.lacuna.sock")'

# complete SHELL LINE: what the terminal shows behind it.
complete_at() {
  timeout 100 python3 "$scripted_folder/complete_at_prompt.py" "$1" "$work/script.$1" "$2"
}

for shell in bash zsh fish; do
  lacuna --generate-completion-script "$shell" >"script.$shell"
  if ! command -v "$shell" >/dev/null; then
    skip "completion in $shell" "$shell is not installed"
    continue
  fi
  check "$shell takes its script" "$shell" -n "script.$shell"
  shown=$(complete_at "$shell" 'lacuna info forged.lacuna ')
  check_equal "$shell offers the good name of a forged store alone" "lacuna info forged.lacuna good" \
    "$(grep -o 'lacuna info forged.lacuna .*[[:alnum:]]' <<<"${shown//$'\r'/$'\n'}" | tail -n 1)"
  shown=$(complete_at "$shell" "lacuna info forged.lacuna '\$(t")
  check_equal "$shell offers nothing that begins with a substitution" "" "$(grep -o 'FILE' <<<"$shown" | head -n 1)"
  check_equal "$shell has run nothing that a name says" "" "$(ls FILE 2>/dev/null)"
  rm -f FILE
  shown=$(complete_at "$shell" 'lacuna info plain.lacuna vm1@mo')
  check "$shell completes the part behind an @" grep -q 'lacuna info plain.lacuna vm1@monday ' <<<"$shown"
  shown=$(complete_at "$shell" 'lacuna delete plain.lacuna vm1@monday vm1@f')
  check "$shell completes it of a second name" grep -q 'lacuna delete plain.lacuna vm1@monday vm1@friday ' <<<"$shown"
  shown=$(complete_at "$shell" 'lacuna serve pl')
  check "$shell offers a store, and not the socket beside it" grep -q 'lacuna serve plain.lacuna ' <<<"$shown"
  shown=$(complete_at "$shell" 'lacuna info plain.lacuna vm1 --control plain.lacuna.s')
  check "$shell offers the socket where one is wanted" grep -q -- '--control plain.lacuna.sock ' <<<"$shown"
done

# --- What the program tells a shell, and how long that takes

# names STORE: what bash would get for `lacuna info STORE `, and sets `milliseconds`.
names() {
  local begin=${EPOCHREALTIME/./}
  found=$(SAP_SHELL=bash timeout 30 lacuna ---completion info -- positional@1 3 0 lacuna info "$1" '' 2>&1)
  milliseconds=$(((${EPOCHREALTIME/./} - begin) / 1000))
}

names plain.lacuna
check_equal "the names of a free store" "vm1 vm1@friday vm1@monday vm2" "$(tr '\n' ' ' <<<"$found" | sed 's/ $//')"

make_store held.lacuna mine || exit 1
hold held.lacuna --comm lacuna
names held.lacuna
check_equal "nothing of a store that another run of lacuna holds" "" "$found"
check_at_most "and that at once" 900 "$milliseconds"
release

hold held.lacuna --listen silent
names held.lacuna
check_equal "nothing of a server that does not answer" "" "$found"
check_at_most "within a second" 1700 "$milliseconds"
release

volume() {
  printf '{"name":"%s","kind":"volume","size":1,"mapped":0,"reserved":0,"readOnly":false,"created":0,"clients":0,"isDefault":false}' "$1"
}
# shellcheck disable=SC2016 # names that a shell must not expand
answer() {
  printf '{"jsonrpc":"2.0","id":ID,"result":{"volumes":[%s,%s,%s,%s]}}\n' "$(volume '$(touch FILE)')" "$(volume told)" \
    "$(volume -x)" "$(volume 'x\ny')"
}
answer >answers
hold held.lacuna --listen "$work/answers"
names held.lacuna
check_equal "of what a server of one's own tells, the good name" "told" "$found"
release

if [ "$(id -u)" -eq 0 ]; then
  chmod 777 "$work"
  hold held.lacuna --listen "$work/answers" --bind-as 54321 --listen-as 54321 --log clients
  names held.lacuna
  check_equal "nothing of another user's server" "" "$found"
  check_equal "which is not even connected to" "" "$(cat clients)"
  release
  hold held.lacuna --listen "$work/answers" --listen-as 54321
  names held.lacuna
  check_equal "nothing of one that listens on a socket of one's own" "" "$found"
  check_at_most "at once" 900 "$milliseconds"
  release
else
  skip "another user's server" "only root can start one"
fi
check_equal "nothing was run" "" "$(ls FILE 2>/dev/null)"
