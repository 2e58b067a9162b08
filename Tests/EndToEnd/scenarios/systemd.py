"""A store as a service of systemd, and a disk that is mounted at boot, as docs/guides/systemd.md has them."""

import json
import re
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

from ..commands import Failed, run
from ..guest import Guest
from ..guest_image import GuestImage, copy_libraries, copy_with_libraries, with_new_lists
from ..lab import Lab
from ..scenario import GUEST, scenario
from ..writer import Writer

STORE = "/var/lib/lacuna/main.lacuna"
GUIDE = Lab.root / "docs/guides/systemd.md"
PROGRAMS = Path("/usr/lib/systemd")
UNITS = PROGRAMS / "system"

#: Of systemd, beside what is on the PATH.
OWN_PROGRAMS = ("systemd", "systemd-journald", "systemd-shutdown", "systemd-fsck",
                "system-generators/systemd-fstab-generator")

#: Units that others refer to.
KNOWN_UNITS = (
    "basic.target", "sysinit.target", "sockets.target", "multi-user.target", "local-fs.target", "local-fs-pre.target",
    "remote-fs.target", "remote-fs-pre.target", "network.target", "paths.target", "timers.target", "slices.target",
    "shutdown.target", "umount.target", "final.target", "poweroff.target", "systemd-poweroff.service",
    "modprobe@.service", "systemd-fsck@.service", "systemd-sysusers.service", "systemd-journald.service",
    "systemd-journald.socket", "systemd-journald-dev-log.socket")

#: Units that start with the machine, by what wants them.
STARTED_UNITS = {
    "sysinit.target": ("systemd-udevd.service", "systemd-udev-trigger.service", "systemd-sysusers.service",
                       "systemd-journald.service"),
    "sockets.target": ("systemd-udevd-kernel.socket", "systemd-udevd-control.socket"),
    "multi-user.target": ("remote-fs.target",),
}

INIT = """\
#!/bin/busybox sh
# Makes the guest ready for systemd, which then is its first process.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /busybox
export PATH=/usr/sbin:/usr/bin:/busybox
modprobe -a virtio_pci virtio_console virtio_rng virtio_blk
exec /usr/lib/systemd/systemd
"""

AGENT = """\
[Service]
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/busybox
ExecStart=/bin/sh -c 'cd /sys/class/virtio-ports; for port in *; do \
    if [ "$(cat $$port/name)" = agent ]; then exec python3 /agent.py /dev/$$port; fi; done'

[Install]
WantedBy=multi-user.target
"""

#: Seconds without an answer while a killed server is started again: one on a real machine, some in an emulated one.
PAUSE_MAX = 20


def from_guide(path: str) -> str:
    """A file as the guide shows it: the block whose first line is a comment with its path."""
    text = GUIDE.read_text(encoding="utf-8")
    found = re.search(rf"^```\w*\n# {re.escape(path)}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise Failed(f"{GUIDE} shows no file {path}")
    return found[1]


def add_files(image: GuestImage, root: Path) -> None:
    """Puts systemd, udev and an installed Lacuna into a guest's files, with the disk of the guide."""
    for name in OWN_PROGRAMS:
        copy_with_libraries(PROGRAMS / name, root)
    add_udev(image, root)
    add_lacuna(root)
    for unit in KNOWN_UNITS:
        shutil.copy(UNITS / unit, root / "usr/lib/systemd/system" / unit)
    for target, units in STARTED_UNITS.items():
        for unit in units:
            start(root, target, unit, UNITS / unit)
    start(root, "sockets.target", "lacuna@main.socket", Path("/usr/local/lib/systemd/system/lacuna@.socket"))
    settings = root / "etc/systemd/system"
    (settings / "agent.service").write_text(AGENT, encoding="ascii")
    start(root, "multi-user.target", "agent.service", Path("/etc/systemd/system/agent.service"))
    (settings / "default.target").symlink_to(UNITS / "multi-user.target")
    (settings / "main-vm1.service").write_text(from_guide("/etc/systemd/system/main-vm1.service"), encoding="ascii")
    # The store is on a disk of the host, and outlives the guest.
    (root / "etc/fstab").write_text("/dev/vda /var/lib/lacuna ext4\n" + from_guide("/etc/fstab"), encoding="ascii")
    for name, text in (("passwd", "root:x:0:0::/root:/bin/sh\n"), ("group", "root:x:0:\ndisk:x:6:\n"),
                       ("nsswitch.conf", "passwd: files\ngroup: files\n"), ("os-release", "ID=guest\n"),
                       ("machine-id", "1" * 32 + "\n")):
        (root / "etc" / name).write_text(text, encoding="ascii")
    for folder in ("var/lib/lacuna", "var/lock", "var/tmp", "tmp", "run", "srv/vm1"):
        (root / folder).mkdir(parents=True)
    (root / "init").write_text(INIT, encoding="ascii")
    (root / "init").chmod(0o755)


def start(root: Path, target: str, unit: str, file: Path) -> None:
    """Has a target start a unit, as `systemctl enable` does."""
    wants = root / f"etc/systemd/system/{target}.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / unit).symlink_to(file)


def add_udev(image: GuestImage, root: Path) -> None:
    """udev from its package, which is not installed: that would start it on this machine."""
    udev = with_new_lists(lambda: image.unpack("udev"))
    for folder in ("lib/udev", "lib/systemd/system"):
        shutil.copytree(udev / folder, root / "usr" / folder, symlinks=True)
    shutil.copy("/usr/lib/udev/rules.d/99-systemd.rules", root / "usr/lib/udev/rules.d")
    shutil.copy(udev / "bin/udevadm", root / "usr/bin/udevadm")
    (root / "usr/lib/systemd/systemd-udevd").symlink_to("/usr/bin/udevadm")
    copy_libraries(udev / "bin/udevadm", root)


def add_lacuna(root: Path) -> None:
    """Lacuna as scripts/install installs it."""
    place = root.with_suffix(".place")
    # As with sudo: what is built already.
    run("env", f"DESTDIR={place}", "SUDO_USER=root", str(Lab.root / "scripts/install"), timeout=300)
    for path in place.rglob("*"):
        if path.is_file() and "share" not in path.parts:
            target = root / path.relative_to(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            if target.suffix == ".so" or target.parent.name == "bin":
                run("strip", str(target))
                copy_libraries(path, root)
    shutil.rmtree(place)


@scenario("systemd", places=(GUEST,), limit=500,
          programs=("systemctl", "systemd-sysusers", "journalctl", "nbdkit", "qemu-nbd", "setpriv", "fsck", "fsck.ext4",
                    "sleep", "sha256sum"))
def systemd(lab: Lab) -> None:
    """A store served by a real systemd, killed and restarted under a mounted disk, which comes back after a reboot."""
    assert lab.image is not None
    disk = lab.folder / "disk"
    with disk.open("wb") as file:
        file.truncate(4 << 30)
    run("mkfs.ext4", "-q", str(disk))
    drive = {"driver": "raw", "file": {"driver": "file", "filename": str(disk)}}
    boot = partial(lab.guest, memory="2G", drives=(drive,), add=partial(add_files, lab.image))

    guest = boot()
    lab.equal("the first process", "systemd\n", guest.run("cat", "/proc/1/comm").output)
    make_store(lab, guest)
    writer = Writer(3)
    deaths(lab, guest, writer)
    # Not synced: this is what shutting down in the right order is for.
    guest.shell("for i in 1 2 3 4 5; do dd if=/dev/urandom of=/srv/vm1/late$i bs=1M count=4 status=none; done")
    sums = guest.shell("sha256sum /srv/vm1/late*").output
    shut_down(guest)

    guest = boot()
    wait_for_mount(guest)
    lab.equal("what was written last", sums, guest.shell("sha256sum /srv/vm1/late*").output)
    writer.verify(guest, "/srv/vm1")
    # It calls a file system clean as well whose journal it has replayed just before.
    found = log_of(guest, "systemd-fsck@dev-nbd0.service")
    lab.check("the file system was clean", "clean" in found and "recovering" not in found, found)
    lab.check("no journal was replayed", "nbd0): recovery complete" not in guest.kernel_log())
    give_back(lab, guest)
    guest.run("systemctl", "stop", "lacuna@main.socket", timeout=60)
    lab.check("nothing is mounted without its server", "/srv/vm1" not in guest.run("cat", "/proc/mounts").output)
    lab.equal("units that failed", "", guest.run("systemctl", "--failed", "--plain", "--no-legend").output)
    guest.run("lacuna", "check", STORE, "--data", timeout=120)
    shut_down(guest)


def make_store(lab: Lab, guest: Guest) -> None:
    """Makes the store, for which the mount of the machine's start has waited, and a file system in it."""
    mode = guest.run("stat", "-c", "%a %U %G", "/run/lacuna/main.sock").output
    lab.equal("the mode of the socket", "660 root lacuna\n", mode)
    # The disk's client waits for the store.
    guest.shell("until [ $(systemctl is-active main-vm1) = activating ]; do sleep 0.1; done")
    guest.shell(f"setpriv --reuid lacuna --regid lacuna --clear-groups lacuna create {STORE} --volume vm1 --size 2G")
    guest.shell("until systemctl is-active main-vm1.service; do sleep 0.5; done", timeout=60)
    # The machine's own attempt to mount it, which finds no file system, may come first, between or last.
    guest.shell("until mkfs.ext4 -q /dev/nbd0; do sleep 0.5; done", timeout=60)
    guest.shell("until systemctl start srv-vm1.mount; do sleep 0.5; done", timeout=60)
    wait_for_mount(guest)


def deaths(lab: Lab, guest: Guest, writer: Writer) -> None:
    """Kills and restarts the server under a writer, which must not notice."""
    running = writer.start(guest, "/srv/vm1")
    slowest = 0.0
    for number in range(6):
        running.wait_for_lines(len(running.lines) + 20)
        before = guest.run("systemctl", "show", "-p", "MainPID", "--value", "lacuna@main").output
        began = time.monotonic()
        if number == 2:
            guest.run("systemctl", "restart", "lacuna@main")
        else:
            guest.run("kill", "-9", before.strip())
        guest.shell(f"until [ $(systemctl show -p MainPID --value lacuna@main) -gt 0 ] && "
                    f"[ $(systemctl show -p MainPID --value lacuna@main) != {before.strip()} ]; do sleep 0.1; done")
        running.wait_for_lines(len(running.lines) + 1)
        slowest = max(slowest, time.monotonic() - began)
    lab.at_most("seconds until a writer goes on", PAUSE_MAX, slowest)
    running.kill()
    running.wait()
    writer.ended()
    errors = [line for line in guest.kernel_log().splitlines() if "I/O error" in line]
    lab.equal("errors of the disk in the kernel's log", [], errors)


def give_back(lab: Lab, guest: Guest) -> None:
    """What is deleted and trimmed comes back to the store."""
    before = mapped(guest)
    guest.shell("rm /srv/vm1/late*; sync; fstrim /srv/vm1")
    guest.run("lacuna", "snapshot", STORE, "vm1@checkpoint")
    lab.at_most("bytes that the volume maps", before - (19 << 20), mapped(guest))


def mapped(guest: Guest) -> int:
    return json.loads(guest.run("lacuna", "info", STORE, "vm1", "--json").output)["mapped"]


def log_of(guest: Guest, unit: str) -> str:
    return guest.run("journalctl", "--no-pager", "--output", "cat", "--unit", unit).output


def shut_down(guest: Guest) -> None:
    """Ends a guest as its user would."""
    guest.start("systemctl", "poweroff")
    try:
        guest.process.wait(90)
    except subprocess.TimeoutExpired as error:
        raise Failed("the guest has not shut down within 90 s") from error


def wait_for_mount(guest: Guest) -> None:
    guest.shell("until grep -q ' /srv/vm1 ' /proc/mounts; do sleep 0.2; done", timeout=120)
