#!/bin/bash
# What is installed works from where it is, and goes without a trace.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need "install" nbdkit nbdinfo

place=$work/place
installed() { (cd "$place" && find . -type f | sort); }
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
./usr/lib/systemd/system/lacuna@.service
./usr/lib/systemd/system/lacuna@.socket
./usr/lib/sysusers.d/lacuna.conf
./usr/share/bash-completion/completions/lacuna
./usr/share/fish/vendor_completions.d/lacuna.fish
./usr/share/zsh/site-functions/_lacuna" "$(installed)"

check_equal "the unit starts the program where it will be" \
  '"/usr/bin/lacuna" serve' "$(sed -n 's/^ExecStart=\(.* serve\) .*/\1/p' "$place/usr/lib/systemd/system/lacuna@.service")"

# As where no Swift toolchain is, and no build folder.
export PATH=$place/usr/bin:/usr/bin:/bin
export LACUNA_PLUGIN=$place/plugins/nbdkit-lacuna-plugin.so
cd "$work" || exit 1
check "the installed program makes a store" lacuna create s.lacuna --size 1G
check "the installed program serves it" lacuna serve s.lacuna --background -- --pidfile "$work/pid"
check_equal "the installed plugin serves it" 1073741824 "$(nbdinfo --size "nbd+unix:///?socket=$work/s.lacuna.nbd")"
check "the installed program asks its server" lacuna check s.lacuna
check "bash takes its completions" bash -n "$place/usr/share/bash-completion/completions/lacuna"

check "scripts/uninstall uninstalls" run_script uninstall
check_equal "nothing is left" "" "$(installed)"
