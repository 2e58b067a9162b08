# shellcheck shell=bash
# What scripts/install and scripts/uninstall share: where the plugin goes. Read after lib.sh.

# Reads the arguments of both, and sets `target`, the plugin's place.
read_plugindir() {
  local plugindir=''
  while (($#)); do
    case $1 in
      --plugindir)
        (($# >= 2)) || die_usage "--plugindir needs a folder"
        plugindir=$2
        shift
        ;;
      --plugindir=*) plugindir=${1#*=} ;;
      *) die_usage "unknown argument '$1'" ;;
    esac
    shift
  done
  if [[ -z $plugindir ]]; then
    need_packages nbdkit-plugin-dev pkg-config
    plugindir=$(pkg-config --variable=plugindir nbdkit) || die "pkg-config does not know nbdkit; use --plugindir"
  fi
  [[ $plugindir == /* ]] || plugindir=$PWD/$plugindir
  target=${DESTDIR:-}$plugindir/nbdkit-lacuna-plugin.so
}

# Runs a command that changes the plugin's folder, as root where that takes root.
change_in_plugindir() {
  local folder=${target%/*}
  while [[ ! -e $folder ]]; do folder=$(dirname "$folder"); done
  if [[ -w $folder ]]; then "$@"; else as_root "$@"; fi
}
