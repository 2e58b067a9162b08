"""A virtual machine, emulated by QEMU, with the Linux kernel's own nbd client."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import IO

from .commands import Failed
from .log import Log
from .machine import Disk, Machine
from .server import Server

#: Where a guest finds the 127.0.0.1 of its host, in QEMU's user network.
HOST = "10.0.2.2"


class Guest(Machine):
    """A guest that runs until `stop`. Its files are in memory, and gone with it."""

    programs = "/programs"
    is_expendable = True

    def __init__(self, log: Log, folder: Path, kernel: Path, files: Path, *, accelerator: str = "tcg", memory: str = "1G",
                 drives: tuple[dict, ...] = ()):
        """`drives` are block devices of QEMU, as -blockdev takes them; the guest has them as /dev/vda, /dev/vdb ..."""
        super().__init__(log)
        self.port = folder / "agent"
        self.console = (folder / "console").open("ab")
        command = [
            "qemu-system-x86_64", "-accel", accelerator, "-m", memory, "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-kernel", str(kernel), "-initrd", str(files), "-append", "console=ttyS0 panic=-1 quiet loglevel=5",
            "-serial", "stdio", "-nic", "user,model=virtio-net-pci", "-device", "virtio-rng-pci",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={self.port},server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=agent",
        ]
        for number, drive in enumerate(drives):
            node = {"node-name": f"drive{number}", **drive}
            command += ["-blockdev", json.dumps(node), "-device", f"virtio-blk-pci,drive=drive{number}"]
        log.write(f"$ {' '.join(command)}\n")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console,
                                        start_new_session=True)

    def boot(self) -> None:
        """Waits until it takes commands."""
        self.socket = self.connect()
        self.stream = self.socket.makefile("rwb")
        self.follow_in_background(self.stream)
        self.wait_until_ready(90)

    def connect(self) -> socket.socket:
        end = time.monotonic() + 20
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self.port))
                return connection
            except OSError as error:
                connection.close()
                if time.monotonic() > end or self.process.poll() is not None:
                    raise Failed(f"QEMU does not run: {error}") from error
                time.sleep(0.05)

    def requests(self) -> IO[bytes]:
        return self.stream

    def attach(self, server: Server, export: str = "", *, connections: int = 1, block_size: int = 512,
               read_only: bool = False, slot: int = 0) -> Disk:
        device = f"/dev/nbd{slot}"
        options = ["-N", export, "-b", str(block_size), "-C", str(connections)] + (["-R"] if read_only else [])
        self.run("nbd-client", HOST, str(server.port), device, *options)
        # The command comes back before the kernel has looked for partitions.
        self.shell(f"until [ -e /sys/block/nbd{slot}/pid ] && [ $(cat /sys/block/nbd{slot}/size) -gt 0 ]; do sleep 0.05; done")
        return Disk(self, device)

    def detach(self, disk: Disk) -> None:
        name = disk.device.removeprefix("/dev/")
        # Once it is told to, the kernel goes on by itself as soon as nobody has the device open any more.
        self.shell(f"if [ -e /sys/block/{name}/pid ]; then nbd-client -d {disk.device}; fi")
        self.shell(f"while [ -e /sys/block/{name}/pid ]; do sleep 0.05; done", timeout=20)

    def let_go(self, disk: Disk) -> None:
        # Without this, and without nbd-client's -timeout, requests that were under way wait for ever.
        self.run("nbd-client", "-d", disk.device)

    def kernel_log(self) -> str:
        """What the kernel has said."""
        return self.run("dmesg").output

    def quit(self) -> None:
        """Ends it at once, as a power cut would."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)
        self.console.close()

    def lose(self, disk: Disk) -> None:
        self.quit()

    def place(self, name: str) -> str:
        return f"/tmp/{name}"

    stop = quit
