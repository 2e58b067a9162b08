"""The program that writes with fsync, as the scenarios use it."""

from __future__ import annotations

from .machine import Machine, Running


class Writer:
    """Runs of `fsync_writer` in one folder of a file system, which go on where the last one ended."""

    def __init__(self, seed: int, *options: str):
        self.seed = seed
        self.options = options
        #: The last step that was acknowledged before the current run.
        self.before = 0
        self.running: Running | None = None

    def start(self, machine: Machine, folder: str, last: int | None = None) -> Running:
        """Starts writing, without end or up to the step `last`."""
        bound = ("--last", str(last)) if last is not None else ()
        command = machine.program(
            "fsync_writer", "write", folder, str(self.seed), "--first", str(self.before + 1), *bound, *self.options)
        self.running = machine.start(*command)
        return self.running

    @property
    def acknowledged(self) -> int:
        """The last step that has been acknowledged by now."""
        return self.before + (len(self.running.lines) if self.running else 0)

    def ended(self) -> int:
        """To be called when the current run is over: returns the last step that was acknowledged, where the next one goes on."""
        self.before, self.running = self.acknowledged, None
        return self.before

    def verify(self, machine: Machine, folder: str, acknowledged: int | None = None) -> None:
        """Fails unless every step up to `acknowledged` (default: all that have been by now) is there."""
        steps = self.acknowledged if acknowledged is None else acknowledged
        machine.run(*machine.program("fsync_writer", "verify", folder, str(self.seed), str(steps), *self.options), timeout=120)
