# shellcheck shell=bash
# What scripts/install and scripts/uninstall share: where things go. Read after lib.sh.

# Reads the arguments of both, and sets `plugin_target`, `link_target`, by which the program finds it, `program_target`,
# `plugin_when_installed` and `program_when_installed` (without DESTDIR), `unit_targets`, by their names in plugin/systemd, and
# `completion_targets`, by shell.
read_places() {
  local prefix='' plugindir=''
  while (($#)); do
    case $1 in
      --prefix | --plugindir)
        (($# >= 2)) || die_usage "$1 needs a folder"
        if [[ $1 == --prefix ]]; then prefix=$2; else plugindir=$2; fi
        shift
        ;;
      --prefix=*) prefix=${1#*=} ;;
      --plugindir=*) plugindir=${1#*=} ;;
      *) die_usage "unknown argument '$1'" ;;
    esac
    shift
  done
  if [[ -z $plugindir && -n $prefix ]]; then
    plugindir=$prefix/lib/nbdkit/plugins
  elif [[ -z $plugindir ]]; then
    need_packages nbdkit-plugin-dev pkg-config
    plugindir=$(pkg-config --variable=plugindir nbdkit) || die "pkg-config does not know nbdkit; use --plugindir"
  fi
  prefix=$(absolute_folder "${prefix:-/usr/local}")
  # shellcheck disable=SC2034
  program_when_installed=$prefix/bin/lacuna
  prefix=${DESTDIR:-}$prefix
  plugin_when_installed=$(absolute_folder "$plugindir")/nbdkit-lacuna-plugin.so
  # shellcheck disable=SC2034 # used by the scripts that read this file
  plugin_target=${DESTDIR:-}$plugin_when_installed
  # shellcheck disable=SC2034
  link_target=$prefix/lib/lacuna/nbdkit-lacuna-plugin.so
  # shellcheck disable=SC2034
  program_target=$prefix/bin/lacuna
  # shellcheck disable=SC2034
  declare -gA completion_targets=(
    [bash]=$prefix/share/bash-completion/completions/lacuna
    [zsh]=$prefix/share/zsh/site-functions/_lacuna
    [fish]=$prefix/share/fish/vendor_completions.d/lacuna.fish
  )
  # shellcheck disable=SC2034
  declare -gA unit_targets=(
    [lacuna@.service]=$prefix/lib/systemd/system/lacuna@.service
    [lacuna@.socket]=$prefix/lib/systemd/system/lacuna@.socket
    [lacuna.conf]=$prefix/lib/sysusers.d/lacuna.conf
  )
}

absolute_folder() {
  if [[ $1 == /* ]]; then printf '%s\n' "$1"; else printf '%s\n' "$PWD/$1"; fi
}

# change_for TARGET COMMAND...: runs a command that changes the file's folder, as root where that takes root.
change_for() {
  local folder=${1%/*}
  shift
  while [[ ! -e $folder ]]; do folder=$(dirname "$folder"); done
  if [[ -w $folder ]]; then "$@"; else as_root "$@"; fi
}
