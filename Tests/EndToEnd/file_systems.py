"""The file systems that disks are tested with."""

from __future__ import annotations

from dataclasses import dataclass

from .machine import Machine


@dataclass(frozen=True)
class FileSystem:
    """How one kind of file system is made, checked and grown. `{}` stands for its device."""

    name: str
    make: tuple[str, ...]
    #: Options of `make` with which nothing is left to be initialised later.
    eager: tuple[str, ...]
    #: Changes nothing, and succeeds only where everything is as it should be.
    check: tuple[str, ...]
    #: Grows a mounted one to the size of its device; `{}` is the device, `{folder}` where it is mounted.
    grow: tuple[str, ...]
    #: Mount options that keep it from writing anything, not even its journal's replay.
    untouched: str
    #: Whether a kernel mounts a copy while the original, which has the same identity, is mounted.
    can_be_twice: bool
    #: Whether its check is content with one that is frozen: no journal to be replayed.
    is_clean_when_frozen: bool

    def format(self, machine: Machine, device: str, *, eagerly: bool = False) -> None:
        machine.run(*(part.format(device) for part in self.make), *(self.eager if eagerly else ()), timeout=120)

    def inspect(self, machine: Machine, device: str) -> None:
        """Fails where its check finds anything."""
        machine.run(*(part.format(device) for part in self.check), timeout=240)

    def replay(self, machine: Machine, device: str) -> None:
        """Has the kernel replay its journal, by mounting it once."""
        with machine.mounted(device, machine.place("replay")):
            pass

    def enlarge(self, machine: Machine, device: str, folder: str) -> None:
        machine.run(*(part.format(device, folder=folder) for part in self.grow), timeout=120)


EXT4 = FileSystem(
    "ext4", make=("mkfs.ext4", "-q", "-F", "{}"), eager=("-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"),
    check=("e2fsck", "-f", "-n", "{}"), grow=("resize2fs", "{}"),
    untouched="ro,noload", can_be_twice=True, is_clean_when_frozen=True)
XFS = FileSystem(
    "xfs", make=("mkfs.xfs", "-q", "-f", "{}"), eager=("-K",), check=("xfs_repair", "-n", "{}"), grow=("xfs_growfs", "{folder}"),
    untouched="ro,norecovery", can_be_twice=False, is_clean_when_frozen=False)
BTRFS = FileSystem(
    "btrfs", make=("mkfs.btrfs", "-q", "-f", "{}"), eager=("--nodiscard",), check=("btrfs", "check", "--readonly", "{}"),
    grow=("btrfs", "filesystem", "resize", "max", "{folder}"), untouched="ro,rescue=nologreplay",
    can_be_twice=False, is_clean_when_frozen=True)
ALL = (EXT4, XFS, BTRFS)
