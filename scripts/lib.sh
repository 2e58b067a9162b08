# shellcheck shell=bash
# What the scripts share. It is read with `source`, after `set -euo pipefail`, and changes nothing by itself.

# The project's folder, wherever the caller is.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# Debian packages: to build and serve, and to run every test as well.
build_packages=(binutils ca-certificates g++ git libc6-dev libisal-dev libisal2 nbdkit nbdkit-plugin-dev pkg-config)
# Debian packages that serving alone needs, where the plugin is built.
# shellcheck disable=SC2034 # used by the scripts that read this file
serve_packages=(libisal2 nbdkit)
# shellcheck disable=SC2034 # used by the scripts that read this file
test_packages=("${build_packages[@]}" btrfs-progs cryptsetup-bin e2fsprogs fdisk fio fish fuse3 gnutls-bin jq libnbd-bin
  libnbd-dev mount nbd-client perl procps python3 python3-libnbd qemu-utils systemd util-linux xfsprogs zsh)
# Debian packages that scripts/e2e needs: programs for guests, and what makes and runs them.
# shellcheck disable=SC2034 # used by the scripts that read this file
e2e_packages=("${build_packages[@]}" btrfs-progs busybox-static coreutils cpio cryptsetup-bin e2fsprogs fdisk
  fio fuse3 gnutls-bin jq kmod libnbd-bin lvm2 mount nbd-client procps python3 python3-libnbd
  qemu-system-x86 qemu-utils systemd util-linux xfsprogs)

# The oldest Swift that builds the project: major and minor.
swift_needed=(6 2)

# One line about what happens.
say() {
  printf '%s\n' "$*"
}

# One line about what went wrong, and the end.
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# One line about a wrong argument, and the end.
die_usage() {
  printf '%s: %s (see %s --help)\n' "${0##*/}" "$*" "$0" >&2
  exit 2
}

# Prints the comment at the top of the script that was started: its help.
print_help() {
  sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p}}' "$0"
}

# Prints the help and ends, where it is among the arguments.
help_if_asked() {
  local argument
  for argument in "$@"; do
    case $argument in
      --) return ;;
      -h | --help)
        print_help
        exit 0
        ;;
    esac
  done
}

# Runs a command as root.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -- "$@"
  else
    die "this needs root, or sudo: $*"
  fi
}

# Whether a Debian package is installed.
is_installed() {
  [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Installs those of the Debian packages named that are missing; says and does nothing where none is.
need_packages() {
  local package missing=() log
  if ! command -v dpkg-query >/dev/null; then
    say "This is not a Debian system; it must have what these packages hold: $*"
    return
  fi
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0

  say "Installing ${missing[*]}"
  log=$(mktemp)
  if ! {
    as_root apt-get update --quiet \
      && as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "${missing[@]}"
  } </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    die "could not install ${missing[*]}"
  fi
  rm -f "$log"
}

# Ends with a clear line unless a new enough Swift is there.
need_swift() {
  local wanted="${swift_needed[0]}.${swift_needed[1]}" text version major minor
  command -v swift >/dev/null \
    || die "Swift $wanted or newer is needed, and there is no 'swift' on the PATH (https://www.swift.org/install)"
  text=$(swift --version 2>/dev/null) || die "'swift --version' failed: is the toolchain whole?"
  [[ $text =~ Swift\ version\ ([0-9]+)\.([0-9]+) ]] || die "cannot tell the version of Swift from: $text"
  major=${BASH_REMATCH[1]} minor=${BASH_REMATCH[2]} version="${BASH_REMATCH[1]}.${BASH_REMATCH[2]}"
  if ((major < swift_needed[0] || (major == swift_needed[0] && minor < swift_needed[1]))); then
    die "Swift $wanted or newer is needed, and 'swift' on the PATH is version $version"
  fi
}

# Everything that building needs.
need_build_tools() {
  need_packages "${build_packages[@]}"
  need_swift
}

# Everything that building the tests needs: all of the package, of which a part is a client that uses libnbd's headers.
need_test_build_tools() {
  need_packages "${build_packages[@]}" libnbd-dev
  need_swift
}

# Where the program is after scripts/build; for `release` or `debug`.
program_path() {
  printf '%s\n' "$root/.build/$1/lacuna"
}

# Where the plugin is after scripts/build; for `release` or `debug`.
plugin_path() {
  printf '%s\n' "$root/.build/$1/nbdkit-lacuna-plugin.so"
}
