"""A machine that a test runs commands on: a virtual one, or this one, each by way of the agent there."""

from __future__ import annotations

import json
import shlex
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from .commands import Failed, Result

if TYPE_CHECKING:
    from .log import Log
    from .server import Server


class Running:
    """A command that was started. Its methods may be called by any thread."""

    def __init__(self, machine: Machine, number: int, command: tuple[str, ...]):
        self.machine = machine
        self.number = number
        self.command = command
        self.lines: list[str] = []
        self.errors: list[str] = []
        self.status: int | None = None
        self.changed = machine.changed

    def wait(self, timeout: float = 60) -> Result:
        """Waits for its end; kills it and fails where that takes longer than `timeout` seconds."""
        if not self.wait_until(lambda: self.status is not None, timeout):
            if self.machine.lost:
                raise Failed(f"the machine went: {shlex.join(self.command)}\n{self.text()}")
            self.kill()
            self.wait_until(lambda: self.status is not None, 5)
            raise Failed(f"took longer than {timeout:g} s: {shlex.join(self.command)}\n{self.text()}")
        assert self.status is not None
        return Result(self.command, self.status, "".join(self.lines), "".join(self.errors))

    def wait_until(self, condition, timeout: float) -> bool:
        """Waits until `condition()` holds, which is looked at with each event of the machine."""
        with self.changed:
            return self.changed.wait_for(lambda: condition() or self.machine.lost, timeout) and bool(condition())

    def wait_for_lines(self, count: int, timeout: float = 60) -> None:
        """Waits until it has printed that many lines."""
        if not self.wait_until(lambda: len(self.lines) >= count or self.status is not None, timeout):
            raise Failed(f"{len(self.lines)} of {count} lines within {timeout:g} s: {shlex.join(self.command)}")
        if len(self.lines) < count:
            raise Failed(f"ended with status {self.status} after {len(self.lines)} of {count} lines:\n{self.text()}")

    @property
    def has_ended(self) -> bool:
        return self.status is not None

    def kill(self, signal: int = 9) -> None:
        """Sends a signal to it and the processes that it started."""
        self.machine.send({"id": self.number, "kill": signal})

    def text(self) -> str:
        """What it has printed by now."""
        return "".join(self.lines[-20:] + self.errors[-20:])


class Disk:
    """A volume that is attached to a machine as a block device."""

    def __init__(self, machine: Machine, device: str):
        self.machine = machine
        self.device = device

    def partition(self, number: int) -> str:
        """The device of a partition, with a number from 1."""
        return f"{self.device}p{number}"


class Machine(ABC):
    """Where commands run and disks are attached."""

    #: Where the folder `programs` is there.
    programs = ""
    #: Whether its kernel may be disturbed: swap, device mapper, a full memory.
    is_expendable = False

    def __init__(self, log: Log):
        self.log = log
        self.changed = threading.Condition()
        self.lost = False
        self.commands: dict[int, Running] = {}
        self.next_number = 1
        self.sending = threading.Lock()

    # What differs.

    @abstractmethod
    def attach(self, server: Server, export: str = "", *, connections: int = 1, block_size: int = 512,
               read_only: bool = False, slot: int = 0) -> Disk:
        """Attaches an export as a block device. Those that are attached at once have different slots, from 0 to 15."""

    @abstractmethod
    def detach(self, disk: Disk) -> None:
        """Detaches it, and waits until it is gone."""

    @abstractmethod
    def let_go(self, disk: Disk) -> None:
        """Gives up a connection whose server has died, so that whoever waits for it gets an error; `detach` comes after that."""

    @abstractmethod
    def lose(self, disk: Disk) -> None:
        """Ends the client of a disk that is in use, as a power cut would, and what was mounted on it."""

    @abstractmethod
    def place(self, name: str) -> str:
        """A path for a file or folder of this test."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it."""

    @abstractmethod
    def requests(self) -> IO[bytes]:
        """Where requests to the agent go."""

    # What is the same.

    def follow_in_background(self, events: IO[bytes]) -> None:
        """Takes events of the agent until it ends, in a thread of its own."""
        threading.Thread(target=self.follow, args=(events,), daemon=True).start()

    def follow(self, events: IO[bytes]) -> None:
        try:
            for line in events:
                self.take(json.loads(line))
        except (OSError, ValueError) as error:
            self.log.write(f"[{error}]\n")
        with self.changed:
            self.lost = True
            self.changed.notify_all()

    def take(self, event: dict) -> None:
        with self.changed:
            running = self.commands.get(event.get("id", 0))
            if "ready" in event:
                self.commands[0] = Running(self, 0, ("agent",))
            elif running is None:
                raise ValueError(f"an event of nothing that was started: {event}")
            elif "out" in event:
                running.lines.append(event["out"])
            elif "err" in event:
                running.errors.append(event["err"])
            else:
                running.status = event["status"]
            self.changed.notify_all()

    def wait_until_ready(self, timeout: float) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: 0 in self.commands or self.lost, timeout) or self.lost:
                raise Failed(f"the machine was not ready within {timeout:g} s")

    def send(self, request: dict) -> None:
        with self.sending:
            try:
                self.requests().write(json.dumps(request).encode() + b"\n")
                self.requests().flush()
            except OSError as error:
                raise Failed(f"the machine does not listen: {error}") from error

    def start(self, *command: str, stdin: str = "") -> Running:
        """Starts a command, and does not wait for it."""
        with self.changed:
            number, self.next_number = self.next_number, self.next_number + 1
            running = self.commands[number] = Running(self, number, command)
        self.log.write(f"$ {shlex.join(command)} &\n")
        self.send({"id": number, "run": command, "stdin": stdin})
        return running

    def run(self, *command: str, timeout: float = 60, check: bool = True, stdin: str = "") -> Result:
        """Runs a command to its end; fails where its status is not 0, unless `check` is false."""
        began = time.monotonic()
        result = self.start(*command, stdin=stdin).wait(timeout)
        self.log.write(f"{result.described()}[{time.monotonic() - began:.2f} s]\n")
        if check and not result.succeeded:
            raise Failed(result.described())
        return result

    def shell(self, script: str, timeout: float = 60, check: bool = True) -> Result:
        """Runs a script that ends at its first failure."""
        return self.run("sh", "-euc", script, timeout=timeout, check=check)

    def used_bytes(self, folder: str) -> int:
        """What a mounted file system says that it uses."""
        return int(self.shell(f"df -B1 --output=used {folder} | tail -1").output)

    def program(self, name: str, *arguments: str) -> tuple[str, ...]:
        """The command that runs one of the programs in the folder `programs`."""
        return ("/usr/bin/python3", "-u", f"{self.programs}/{name}.py", *arguments)

    @contextmanager
    def attached(self, server: Server, export: str = "", *, connections: int = 1, block_size: int = 512,
                 read_only: bool = False, slot: int = 0) -> Iterator[Disk]:
        """Attaches an export for as long as a block of code runs."""
        disk = self.attach(server, export, connections=connections, block_size=block_size, read_only=read_only, slot=slot)
        try:
            yield disk
        except BaseException:
            self.give_up(disk)
            raise
        self.detach(disk)

    def give_up(self, disk: Disk) -> None:
        """After a failure: detaches the disk if that works, and keeps the failure."""
        try:
            self.run("umount", "--all-targets", disk.device, timeout=20, check=False)
            self.detach(disk)
        except Failed as error:
            self.log.write(f"[detaching {disk.device} after a failure: {error}]\n")

    @contextmanager
    def mounted(self, device: str, folder: str, options: str = "") -> Iterator[str]:
        """Mounts a file system for as long as a block of code runs."""
        self.run("mkdir", "-p", folder)
        self.run("mount", *(("-o", options) if options else ()), device, folder)
        try:
            yield folder
        except BaseException:
            self.run("umount", folder, timeout=20, check=False)
            raise
        self.run("umount", folder, timeout=120)
