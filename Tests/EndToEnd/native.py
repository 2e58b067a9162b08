"""This machine as a client: nbdfuse shows an export as a file, and a loop device makes it a block device."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from .commands import Failed, run
from .log import Log
from .machine import Disk, Machine
from .server import Server

HERE = Path(__file__).parent


def why_not() -> str | None:
    """Why this machine cannot attach disks; none where it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    for path in ("/dev/fuse", "/dev/loop-control"):
        if not Path(path).exists():
            return f"this machine has no {path}"
    with tempfile.NamedTemporaryFile() as probe:
        probe.truncate(1 << 20)
        found = run("losetup", "--find", "--show", probe.name, check=False)
        if not found.succeeded:
            return f"no loop device can be had: {found.errors.strip()}"
        run("losetup", "--detach", found.output.strip())
    return None


def kernel_has(file_system: str) -> bool:
    """Whether this kernel mounts a kind of file system."""
    names = Path("/proc/filesystems").read_text(encoding="ascii").split()
    return file_system in names or run("modprobe", file_system, check=False).succeeded


class FuseDisk(Disk):
    """A disk with the process and the folder of nbdfuse behind it."""

    def __init__(self, machine: Machine, device: str, folder: Path, process: subprocess.Popen):
        super().__init__(machine, device)
        self.folder = folder
        self.process = process


class Native(Machine):
    """This machine, whose kernel has ext4, and perhaps xfs and btrfs, and no nbd client."""

    programs = str(HERE / "programs")

    def __init__(self, log: Log, folder: Path):
        super().__init__(log)
        self.folder = folder
        self.agent = subprocess.Popen([sys.executable, "-u", str(HERE / "agent.py")], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, start_new_session=True)
        assert self.agent.stdin is not None and self.agent.stdout is not None
        self.input = self.agent.stdin
        self.follow_in_background(self.agent.stdout)
        self.wait_until_ready(10)
        self.disks: list[FuseDisk] = []

    def requests(self) -> IO[bytes]:
        return self.input

    def attach(self, server: Server, export: str = "", *, connections: int = 1, block_size: int = 512,
               read_only: bool = False, slot: int = 0) -> Disk:
        folder = self.folder / f"fuse{slot}"
        folder.mkdir(exist_ok=True)
        # mkfs.btrfs takes loop devices for the same whose files have one name.
        file = folder / "-".join((*self.folder.parts[-2:], str(slot)))
        process = subprocess.Popen(
            ["nbdfuse", "-C", str(connections), *(["-r"] if read_only else []), str(file), server.uri(export)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(self.folder / "fuse.log").open("ab"))
        disk = FuseDisk(self, "", folder, process)
        self.disks.append(disk)
        self.shell(f"until [ -e {file} ]; do sleep 0.05; done", timeout=20)
        # With direct I/O: what was read or written once would be read from memory again, and not from the server.
        disk.device = self.run("losetup", "--find", "--show", "--partscan", "--direct-io=on", "--sector-size", str(block_size),
                               *(["--read-only"] if read_only else []), str(file)).output.strip()
        # The loop device has the file open. Nobody else should see it: programs such as mkfs.btrfs look at the files behind
        # all loop devices, and fail where one of them is of a server that has died. nbdfuse ends with its last user.
        self.run("umount", "--lazy", str(folder))
        return disk

    def detach(self, disk: Disk) -> None:
        assert isinstance(disk, FuseDisk)
        self.run("losetup", "--detach", disk.device)
        try:
            disk.process.wait(20)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{disk.device} is detached, and nbdfuse did not end within 20 s") from error
        self.disks.remove(disk)

    def let_go(self, disk: Disk) -> None:
        # nbdfuse gives errors from the moment in which its server is gone.
        pass

    def lose(self, disk: Disk) -> None:
        assert isinstance(disk, FuseDisk)
        disk.process.kill()
        # What the file system could not write is lost to it, which unmounting may say; first its users must have noticed.
        self.shell(f"while findmnt {disk.device} >/dev/null; do umount --all-targets {disk.device} || sleep 0.1; done", timeout=90)
        self.detach(disk)

    def place(self, name: str) -> str:
        return str(self.folder / name)

    def stop(self) -> None:
        """Ends what runs and detaches what is left, both of which are there after a failure only, and ends the agent."""
        for running in list(self.commands.values()):
            if not running.has_ended and running.number:
                running.kill()
        for disk in list(self.disks):
            # Without nbdfuse everything above gets errors, and nothing waits any more.
            disk.process.kill()
            for command in (("umount", "--all-targets", disk.device), ("umount", "--all-targets", "--lazy", disk.device),
                            ("losetup", "--detach", disk.device), ("umount", "--lazy", str(disk.folder))):
                try:
                    if disk.device or str(disk.folder) in command:
                        self.log.write(run(*command, check=False).described())
                except Failed as error:
                    self.log.write(f"[{error}]\n")
        self.input.close()
        self.agent.wait(20)
