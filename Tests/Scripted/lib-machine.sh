#!/bin/bash
# The first process of a machine made of namespaces: gives it a root file system of its own, and becomes systemd.
#
# Usage: unshare --mount --pid --fork --cgroup --ipc --uts --net lib-machine.sh ROOT PLACE PLUGINDIR
#
# ROOT is an empty folder, PLACE a folder that scripts/install installed into (DESTDIR), PLUGINDIR where it put the plugin. The
# machine has this one's /usr, with what is in PLACE over it; all else is in memory and goes with it. It starts no units but
# its own, and can change no setting of the kernel.
set -euo pipefail
root=$1 place=$2 plugindir=$3

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir -p dev etc/systemd/system proc sys run tmp usr var/tmp root old units
chmod 1777 tmp var/tmp

mount --bind /usr usr
for folder in bin sbin lib lib64; do
  if [ -L "/$folder" ]; then cp -P "/$folder" .; else mkdir "$folder" && mount --bind "/$folder" "$folder"; fi
done
mount --bind "$place/usr/local" usr/local
mount -t overlay -o "lowerdir=$place$plugindir:$plugindir" overlay "${plugindir#/}"

# A mount of its own, or systemd would mount the one that is this machine's too.
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
  touch "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup

cp /etc/ld.so.cache etc
printf 'root:x:0:0::/root:/bin/sh\n' >etc/passwd
printf 'root:x:0:\n' >etc/group
printf 'passwd: files\ngroup: files\n' >etc/nsswitch.conf
printf 'machine\n' >etc/hostname
printf '[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\n' >etc/systemd/journald.conf

# A unit does not bring others with it that folders like sysinit.target.wants name.
for unit in basic.target sysinit.target sockets.target multi-user.target shutdown.target umount.target \
  local-fs.target local-fs-pre.target paths.target timers.target slices.target \
  systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
  cp "/usr/lib/systemd/system/$unit" units
done
cat >units/machine.target <<'UNIT'
[Unit]
Requires=basic.target systemd-journald.service
After=basic.target
UNIT

pivot_root . old
umount --lazy /old
exec env --ignore-environment container=lacuna PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  SYSTEMD_UNIT_PATH=/etc/systemd/system:/usr/local/lib/systemd/system:/units SYSTEMD_GENERATOR_PATH=/nowhere \
  /lib/systemd/systemd --system --unit=machine.target --log-target=journal --show-status=no
