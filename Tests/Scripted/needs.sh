#!/bin/bash
# Each script installs what it needs, or says in one line what is missing: on a machine where no package is there, and where dpkg, apt,
# swift and sudo are stand-ins that write down how they were called.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

stubs=$work/stubs calls=$work/calls
mkdir "$stubs"
# stub NAME TEXT: a program for the scripts to find.
stub() {
  printf '#!/bin/bash\n%s\n' "$2" >"$stubs/$1"
  chmod +x "$stubs/$1"
}
stub dpkg-query 'exit 1'
# shellcheck disable=SC2016 # expanded by the stubs
{
  stub sudo 'while [[ $1 == -* ]]; do shift; done; exec "$@"'
  stub apt-get 'echo "apt-get $*" >>"$CALLS"'
  stub swift 'if [[ $1 == --version ]]; then echo "Swift version 6.2"; exit; fi
echo "swift ${LACUNA_FUZZ:+LACUNA_FUZZ }$*" >>"$CALLS"
[[ $1 == format ]]'
  stub nbdbench 'exit 0'
}
stub shellcheck 'exit 0'

# run_script SCRIPT ARGUMENT...: its output is in $work/out, and what it called in $calls.
run_script() {
  : >"$calls"
  # Nothing that it would start lasts: the build, with which each begins, fails.
  CALLS=$calls NBDBENCH=$stubs/nbdbench PATH=$stubs:$PATH timeout 60 "$repository/scripts/$1" "${@:2}" \
    >"$work/out" 2>&1 </dev/null
}

# asks_for PACKAGE...: whether all were to be installed before the first use of swift.
asks_for() {
  local package installed
  installed=" $(sed '/^swift/,$d' "$calls" | sed -n 's/.*apt-get.* install //p' | tr '\n' ' ') "
  for package in "$@"; do
    [[ $installed == *" $package "* ]] || { printf 'no %s among:%s\n' "$package" "$installed" && return 1; }
  done
}

# needs "SCRIPT ARGUMENTS" PACKAGE...
needs() {
  local line=$1
  shift
  # shellcheck disable=SC2086 # words
  run_script $line
  check "scripts/$line installs $*" asks_for "$@"
  check "scripts/$line then builds" grep -q '^swift ' "$calls"
}

build=(g++ git libisal-dev nbdkit nbdkit-plugin-dev pkg-config)
needs build "${build[@]}"
needs "install --prefix $work/prefix --plugindir $work/plugins" "${build[@]}"
needs "serve memory=1M" "${build[@]}"
needs check "${build[@]}" libnbd-dev shellcheck
needs test "${build[@]}" libnbd-dev python3-libnbd qemu-utils perl fish zsh
needs sanitize "${build[@]}" libnbd-dev
needs crash-hunt "${build[@]}" libnbd-dev
needs "crash-hunt --delays 1" "${build[@]}" python3-libnbd
needs "fuzz store --seconds 1" "${build[@]}" libnbd-dev
needs bench "${build[@]}" fio libnbd-bin
needs bench-snapshots "${build[@]}" fio python3
needs e2e "${build[@]}" python3-libnbd qemu-system-x86

# Whatever builds all of the package, or its tests, needs the headers of libnbd; no script is left out.
for script in "$repository"/scripts/*; do
  name=${script##*/}
  [ -x "$script" ] || continue
  case $name in *.sh | *.py | uninstall) continue ;; esac
  check "scripts/$name is one of those above" grep -qE "^needs \"?${name}[ \"]" "$0"
  check "scripts/$name --help explains it" grep -q '^Usage: ' <("$script" --help)
done

# What cannot be had is one line.
stub apt-get 'exit 1'
run_script crash-hunt
check_equal "a package that cannot be had is told in one line" \
  "crash-hunt: could not install" "$(tail -n 1 "$work/out" | cut -d' ' -f1-4)"
stub apt-get 'exit 0'
stub swift 'echo "Swift version 5.9"'
run_script fuzz
check_equal "so is a toolchain that is too old" \
  "fuzz: Swift 6.2 or newer is needed, and 'swift' on the PATH is version 5.9" "$(tail -n 1 "$work/out")"
