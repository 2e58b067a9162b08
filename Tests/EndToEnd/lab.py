"""What one run of a scenario has at hand, and cleans up after."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from .commands import Failed
from .file_systems import FileSystem
from .guest import Guest
from .guest_image import GuestImage
from .log import Log
from .machine import Machine
from .native import Native
from .server import ROOT, Server, Store, free_port


class Lab:
    """A folder, a log, machines and servers; all of them end with it."""

    root = ROOT

    def __init__(self, folder: Path, log: Log, image: GuestImage | None, accelerator: str, file_system: FileSystem,
                 programs: tuple[str, ...], is_native: bool):
        self.folder = folder
        self.log = log
        self.image = image
        self.accelerator = accelerator
        self.file_system = file_system
        self.programs = programs
        self.is_native = is_native
        self.endings: list[Callable[[], None]] = []
        self.has_ended = False
        #: What could not be ended, and why.
        self.left: list[str] = []
        self.machines = 0
        self.servers = 0

    def store(self, name: str = "store", *, volume: str = "disk", size: str = "8G", options: tuple[str, ...] = ()) -> Store:
        """A new store with one volume."""
        store = Store(self.folder / f"{name}.lacuna", self.log)
        store.lacuna("create", "--volume", volume, "--size", size, *options)
        return store

    def server(self, store: Store, *arguments: str, over_tcp: bool = False) -> Server:
        """Serves a store, with further arguments of nbdkit and the plugin; where the lab's machines can reach it."""
        self.servers += 1
        port = None if self.is_native and not over_tcp else free_port()
        path = self.folder / f"{self.servers}.sock"
        server = Server(store, self.log, port, path, arguments)
        self.end_later(server.end_now)
        server.wait_until_it_serves()
        return server

    def machine(self) -> Machine:
        """A machine as the scenario is run on: a guest, or this one."""
        return self.native() if self.is_native else self.guest()

    def native(self) -> Native:
        folder = self.new_folder("native")
        native = Native(self.log, folder)
        self.end_later(native.stop)
        return native

    def guest(self, *, memory: str = "1G", drives: tuple[dict, ...] = (),
              add: Callable[[Path], None] | None = None) -> Guest:
        """Boots a guest. `add` is called with a folder, to put more of the guest's files there."""
        if self.image is None:
            raise Failed("there is no image for guests")
        folder = self.new_folder("guest")
        files = self.image.with_programs(self.programs, folder / "files", add)
        guest = Guest(self.log, folder, self.image.kernel, files, accelerator=self.accelerator, memory=memory, drives=drives)
        self.end_later(guest.stop)
        guest.boot()
        return guest

    def new_folder(self, name: str) -> Path:
        self.machines += 1
        folder = self.folder / f"{name}{self.machines}"
        folder.mkdir()
        return folder

    def end_later(self, ending: Callable[[], None]) -> None:
        """What was just started is ended with the lab; at once where that has ended, which another thread may decide."""
        self.endings.append(ending)
        if self.has_ended:
            self.end()
            raise Failed("the case was ended")

    def end(self) -> None:
        """Ends whatever is left, the newest first."""
        self.has_ended = True
        while self.endings:
            try:
                self.endings.pop()()
            except Exception as error:  # pylint: disable=broad-except
                self.left.append(str(error))
                self.log.write(f"[cleaning up: {error}]\n")

    # What a scenario asserts.

    def check(self, what: str, holds: bool, detail: object = "") -> None:
        """Fails unless something holds."""
        self.log.write(f"{'holds' if holds else 'DOES NOT HOLD'}: {what} {detail}\n")
        if not holds:
            raise Failed(f"{what}: {detail}" if detail != "" else what)

    def equal(self, what: str, expected: object, found: object) -> None:
        self.check(what, expected == found, f"expected {expected}, found {found}")

    def at_most(self, what: str, limit: float, found: float) -> None:
        self.check(what, found <= limit, f"{found} of at most {limit}")

    def at_least(self, what: str, limit: float, found: float) -> None:
        self.check(what, found >= limit, f"{found} of at least {limit}")
