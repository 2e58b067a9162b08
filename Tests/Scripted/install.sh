#!/bin/bash
# What is installed works from where it is, and goes without a trace.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need "install" nbdkit nbdinfo

place=$work/place
installed() { (cd "$place" && find . -type f -o -type l | sort); }
# shellcheck disable=SC2317 # `check` calls it
run_script() {
  env -u SUDO_USER DESTDIR="$place" timeout 1200 "$repository/scripts/$1" --prefix /usr --plugindir /plugins \
    >"$work/$1.log" 2>&1
}
# shellcheck disable=SC2317 # finish() calls it
clean_up() {
  if [ -s "$work/pid" ]; then kill "$(cat "$work/pid")"; fi
}

check "scripts/install installs" run_script install
check_equal "plugin, program, completions and units are there" \
  "./plugins/nbdkit-lacuna-plugin.so
./usr/bin/lacuna
./usr/lib/lacuna/nbdkit-lacuna-plugin.so
./usr/lib/systemd/system/lacuna@.service
./usr/lib/systemd/system/lacuna@.socket
./usr/lib/sysusers.d/lacuna.conf
./usr/share/bash-completion/completions/lacuna
./usr/share/fish/vendor_completions.d/lacuna.fish
./usr/share/zsh/site-functions/_lacuna" "$(installed)"

check_equal "the unit starts the program where it will be" \
  '"/usr/bin/lacuna" serve' "$(sed -n 's/^ExecStart=\(.* serve\) .*/\1/p' "$place/usr/lib/systemd/system/lacuna@.service")"

# As where no Swift toolchain is, and no build folder.
with_toolchain=$PATH
export PATH=$place/usr/bin:/usr/bin:/bin
export LACUNA_PLUGIN=$place/plugins/nbdkit-lacuna-plugin.so
cd "$work" || exit 1
check "the installed program makes a store" lacuna create s.lacuna --size 1G
check "the installed program serves it" lacuna serve s.lacuna --background --pidfile "$work/pid"
check_equal "the installed plugin serves it" 1073741824 "$(nbdinfo --size "nbd+unix:///?socket=$work/s.lacuna.nbd")"
check "the installed program asks its server" lacuna check s.lacuna
check "the installed program ends its server" lacuna stop s.lacuna
check "bash takes its completions" bash -n "$place/usr/share/bash-completion/completions/lacuna"

check "scripts/uninstall uninstalls" run_script uninstall
check_equal "nothing is left" "" "$(installed)"

# A prefix of one's own, with the plugin below it or somewhere else: all of it finds itself.
unset LACUNA_PLUGIN
export PATH=$with_toolchain
run_at_home() { env -u SUDO_USER timeout 1200 "$repository/scripts/$1" --prefix "$work/home" "${@:2}" >"$work/$1.log" 2>&1; }
for plugins in "" "--plugindir=$work/elsewhere"; do
  check "scripts/install --prefix${plugins:+ --plugindir} installs" run_at_home install ${plugins:+"$plugins"}
  expected=$work/home/lib/nbdkit/plugins/nbdkit-lacuna-plugin.so
  [ -z "$plugins" ] || expected=$work/elsewhere/nbdkit-lacuna-plugin.so
  check "the plugin is there" test -f "$expected"
  line=$("$work/home/bin/lacuna" serve "$work/s.lacuna" --dry-run)
  found=$(printf '%s\n' "$line" | grep -o '[^ ]*nbdkit-lacuna-plugin.so')
  check_equal "the program finds this plugin" "$expected" "$(realpath "$found")"
  start=$(sed -n 's/^ExecStart=//p' "$work/home/lib/systemd/system/lacuna@.service")
  check_equal "the unit starts this program" "\"$work/home/bin/lacuna\"" "${start%% *}"
  check "install says how systemd finds the units" grep -q "systemctl link $work/home/lib/systemd/system" "$work/install.log"
  check "install says how nbdkit finds the plugin" grep -q "nbdkit $expected" "$work/install.log"
  check "the server is the one of this prefix" "$work/home/bin/lacuna" serve "$work/s.lacuna" --background
  check "it ends" "$work/home/bin/lacuna" stop "$work/s.lacuna"
  check "scripts/uninstall --prefix uninstalls" run_at_home uninstall ${plugins:+"$plugins"}
  check_equal "nothing is left of it" "" "$(cd "$work" && find home elsewhere -type f -o -type l 2>/dev/null)"
done
