"""What a virtual machine boots: Debian's cloud kernel, and a file system in memory with programs of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from .commands import Failed, run

#: Kernel modules that every guest loads.
LOADED_MODULES = ("virtio_pci", "virtio_net", "virtio_console", "virtio_rng", "virtio_blk", "nbd")

#: Those that are loaded when they are needed.
OTHER_MODULES = ("xfs", "btrfs", "dm_mod", "dm_crypt", "dm_snapshot", "loop")

#: Programs that every guest has; busybox has the rest. (Its own shell would take its own programs first.)
PROGRAMS = ("python3", "dash", "nbd-client", "mount", "umount", "findmnt", "fstrim", "fsfreeze", "blkdiscard", "blockdev",
            "mke2fs", "mkfs.ext4", "e2fsck", "resize2fs", "dumpe2fs", "sfdisk", "mkswap", "swapon", "swapoff", "sync", "stat",
            "df", "cp", "dd")

#: What Python programs do not need.
PYTHON_LEFT_OUT = shutil.ignore_patterns("__pycache__", "test", "tests", "idlelib", "lib2to3", "ensurepip", "distutils",
                                         "config-3*", "pydoc_data", "sqlite3", "turtle*", "tkinter", "dist-packages")

HERE = Path(__file__).parent

INIT = """\
#!/bin/busybox sh
# The first process of the guest: makes it ready, and runs the agent until it ends.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /busybox
export PATH=/usr/sbin:/usr/bin:/busybox HOME=/root
modprobe -a LOADED_MODULES
mkdir -p /dev/pts /run /tmp
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
for port in /sys/class/virtio-ports/*; do
  if [ "$(cat "$port/name")" = agent ]; then python3 /agent.py "/dev/${port##*/}"; fi
done
poweroff -f
"""


class GuestImage:
    """A kernel and the archives of files that guests are started with. Made once a run, then only read."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.kernel = folder / "vmlinuz"
        self.base = folder / "base.cpio"
        self.base_files: set[str] = set()

    def prepare(self) -> None:
        """Makes kernel and base archive."""
        unpacked = self.unpack_kernel()
        release = next((unpacked / "lib/modules").iterdir()).name
        shutil.copyfile(unpacked / f"boot/vmlinuz-{release}", self.kernel)
        root = self.folder / "base"
        shutil.rmtree(root, ignore_errors=True)
        for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "busybox", "proc", "sys", "dev", "etc", "root"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        self.copy_modules(unpacked, release, root / "usr")
        self.copy_programs(root, ("busybox", *PROGRAMS))
        self.copy_python(root)
        shutil.copyfile("/etc/mke2fs.conf", root / "etc/mke2fs.conf")
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n", encoding="ascii")
        (root / "etc/group").write_text("root:x:0:\n", encoding="ascii")
        (root / "usr/bin/sh").symlink_to("dash")
        (root / "usr/sbin/modprobe").symlink_to("/usr/bin/busybox")
        shutil.copyfile(HERE / "agent.py", root / "agent.py")
        shutil.copytree(HERE / "programs", root / "programs", ignore=PYTHON_LEFT_OUT)
        init = root / "init"
        init.write_text(INIT.replace("LOADED_MODULES", " ".join(LOADED_MODULES)), encoding="ascii")
        init.chmod(0o755)
        self.base_files = files_below(root)
        archive(root, self.base)

    def with_programs(self, programs: tuple[str, ...], target: Path,
                      add: Callable[[Path], None] | None = None) -> Path:
        """A file for a guest that has more programs, which may be absolute paths of files too, and what `add` adds."""
        if not programs and add is None:
            return self.base
        root = target.with_suffix(".files")
        root.mkdir()
        self.copy_programs(root, programs)
        # The kernel takes several archives in a row; what the first one has need not come again.
        for name in files_below(root) & self.base_files:
            (root / name).unlink()
        if add:
            add(root)
        extra = target.with_suffix(".extra")
        archive(root, extra)
        with target.open("wb") as joined:
            for part in (self.base, extra):
                with part.open("rb") as source:
                    shutil.copyfileobj(source, joined, 1 << 20)
        extra.unlink()
        shutil.rmtree(root)
        return target

    def unpack_kernel(self) -> Path:
        """Downloads the package of the newest cloud kernel, where it is not there already, and unpacks it."""
        architecture = run("dpkg", "--print-architecture").output.strip()
        if architecture != "amd64":
            raise Failed(f"the guest is written for amd64, and this machine is {architecture}")
        return with_new_lists(lambda: self.unpack(newest_kernel(), self.list_modules))

    def list_modules(self, files: Path) -> None:
        """Makes the lists of a kernel's modules that modprobe reads."""
        run("depmod", "-b", str(files), next((files / "lib/modules").iterdir()).name, timeout=120)

    def unpack(self, package: str, complete: Callable[[Path], None] = lambda files: None) -> Path:
        """Downloads a package, where it is not there already, and unpacks it. `complete` adds to its files, once."""
        unpacked = self.folder / package
        if not unpacked.exists():
            download = self.folder / "download"
            shutil.rmtree(download, ignore_errors=True)
            download.mkdir()
            # As whoever we are: apt's own user may not write to this folder.
            run("env", "--chdir", str(download), "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package,
                timeout=300)
            run("dpkg-deb", "-x", str(next(download.glob("*.deb"))), str(download / "files"), timeout=120)
            complete(download / "files")
            (download / "files").rename(unpacked)
            shutil.rmtree(download)
        return unpacked

    def copy_modules(self, unpacked: Path, release: str, target: Path) -> None:
        """Copies modules and those that they need, to where modprobe looks for them."""
        for module in LOADED_MODULES + OTHER_MODULES:
            shown = run("modprobe", "-d", str(unpacked), "-S", release, "--show-depends", module).output
            for path in re.findall(r"^insmod (\S+)", shown, re.MULTILINE):
                place = target / Path(path).relative_to(unpacked)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
        for name in ("modules.dep", "modules.alias", "modules.builtin"):
            shutil.copyfile(unpacked / "lib/modules" / release / name, target / "lib/modules" / release / name)

    def copy_programs(self, root: Path, programs: tuple[str, ...]) -> None:
        """Copies programs with the libraries that they need, to where they are on this machine."""
        search = "/usr/sbin:/usr/bin:/sbin:/bin"
        for program in programs:
            path = shutil.which(program, path=search)
            if path is None:
                raise Failed(f"there is no program {program} for the guest")
            copy_with_libraries(Path(path), root)

    def copy_python(self, root: Path) -> None:
        version = run("/usr/bin/python3", "-c", "import sys; print('python%d.%d' % sys.version_info[:2])").output.strip()
        library = Path("/usr/lib") / version
        shutil.copytree(library, root / library.relative_to("/"), ignore=PYTHON_LEFT_OUT, dirs_exist_ok=True)
        for module in (library / "lib-dynload").glob("*.so"):
            copy_libraries(module, root)


def newest_kernel() -> str:
    """The package of the newest cloud kernel that apt knows."""
    depends = run("apt-cache", "depends", "linux-image-cloud-amd64").output
    found = re.search(r"Depends: (linux-image-[0-9]\S+)", depends)
    if not found:
        raise Failed(f"apt-cache knows no cloud kernel:\n{depends}")
    return found[1]


def with_new_lists(action: Callable[[], Path]) -> Path:
    """Does something with apt; once more with new lists of packages, where those of this machine are missing or too old."""
    try:
        return action()
    except Failed:
        as_root = () if os.geteuid() == 0 else ("sudo", "--")
        run(*as_root, "apt-get", "-q", "update", timeout=300)
        return action()


def copy_with_libraries(path: Path, root: Path) -> None:
    """Copies a program or library, and the libraries that it needs; links on the way become files."""
    target = root / canonical(path).relative_to("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        copy_libraries(path, root)


def copy_libraries(path: Path, root: Path) -> None:
    # A static program has none, which ldd says with a status of 1.
    for line in run("ldd", str(path), check=False).output.splitlines():
        found = re.search(r"(/\S+) \(0x", line)
        if found:
            target = root / canonical(Path(found[1])).relative_to("/")
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found[1], target)


def canonical(path: Path) -> Path:
    """The path with /bin, /sbin, /lib and /lib64 below /usr, where Debian has them; the name stays."""
    parts = path.parts
    return Path("/usr", *parts[1:]) if parts[1] in ("bin", "sbin", "lib", "lib64") else path


def files_below(root: Path) -> set[str]:
    return {os.path.join(folder, name)[len(str(root)) + 1:] for folder, _, names in os.walk(root) for name in names}


def archive(root: Path, target: Path) -> None:
    """Packs a folder in the form that the kernel unpacks."""
    names = "\0".join(["."] + sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    with target.open("wb") as output:
        subprocess.run(["cpio", "--null", "--create", "--format=newc", "--quiet", "--owner=0:0"], cwd=root, check=True,
                       input=names.encode(), stdout=output, timeout=120)
