"""What all threads of a round share: volumes and names, and when the server was dead."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Iterator

from .registers import Event, NEVER, Register, beginning, now
from .server import Server
from .volumes import Shape, Snapshot, Volume

#: How much of a history a failure shows.
HISTORY_LINES = 25


class World:
    """The model of a store. Whoever changes or asks it holds `lock`."""

    def __init__(self, server: Server, shape: Shape, volumes_max: int, left_out: frozenset[str]):
        self.server = server
        self.shape = shape
        self.volumes_max = volumes_max
        #: Operations that nobody does, by their names.
        self.left_out = left_out
        self.began = now()
        self.lock = threading.RLock()
        #: Held by operations that make names or take them away: a server that is killed meanwhile would leave it open whether.
        self.naming = threading.Lock()
        self.stopping = threading.Event()
        self.serving = threading.Event()
        self.serving.set()
        #: When the server was dead, or was being killed or started.
        self.deaths: list[list[int]] = []
        self.failures: list[str] = []
        self.volumes: list[Volume] = []
        self.names: dict[str, Register] = {}
        #: A throwaway that may be promoted, and its export's name.
        self.offered: tuple[Volume, str] | None = None
        self.numbers = 0
        self.counts: dict[str, int] = {}
        self._open: dict[int, int] = {}

    def number(self) -> int:
        """A number that nothing else has."""
        with self.lock:
            self.numbers += 1
            return self.numbers

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def fail(self, text: str) -> None:
        """Ends the round."""
        with self.lock:
            self.failures.append(text)
        self.stopping.set()

    # Times

    @contextmanager
    def interval(self) -> Iterator[int]:
        """Something that may ask the registers of what was when it began."""
        with self.lock:
            number = self.number()
            start = self._open[number] = now()
        try:
            yield start
        finally:
            with self.lock:
                del self._open[number]

    def horizon(self) -> int:
        """Nobody asks of what was before."""
        return min(self._open.values(), default=now())

    def was_dead(self, start: int, end: int) -> bool:
        """Whether the server was dead for a part of this time."""
        with self.lock:
            return any(first <= end and last >= start for first, last in self.deaths)

    @contextmanager
    def death(self) -> Iterator[None]:
        """While the server is killed and started again."""
        with self.lock:
            self.deaths.append([now(), NEVER])
        self.serving.clear()
        yield
        with self.lock:
            self.deaths[-1][1] = now()
        self.serving.set()

    # Names

    def name_register(self, name: str) -> Register:
        if name not in self.names:
            self.names[name] = Register(0, beginning(False))
        return self.names[name]

    def name_event(self, name: str, is_there: bool, text: str) -> Event:
        """A name comes, or goes."""
        event = Event(text, is_there)
        self.name_register(name).add(event, self.horizon)
        return event

    def may_be_absent(self, name: str, start: int, end: int) -> bool:
        return False in self.name_register(name).possible(start, end)

    def may_be_present(self, name: str, start: int, end: int) -> bool:
        return True in self.name_register(name).possible(start, end)

    # Choosing

    @contextmanager
    def using(self, volume: Volume | None, *, alone: bool = False) -> Iterator[bool]:
        """Keeps a volume and its snapshots, and their names, while an operation is about them. False where another one has it for
        itself, or for `alone` where any has."""
        with self.lock:
            may = volume is not None and not volume.is_exclusive and not (alone and volume.uses) and volume.deletion is None
            if may and volume is not None:
                volume.uses += 1
                volume.is_exclusive = alone
        try:
            yield may
        finally:
            if may and volume is not None:
                with self.lock:
                    volume.uses -= 1
                    volume.is_exclusive = False

    def known_snapshots(self) -> list[Snapshot]:
        """Those whose contents are known."""
        with self.lock:
            return [snapshot for volume in self.volumes for snapshot in volume.snapshots
                    if snapshot.contents and snapshot.deletion is None]

    # Failures

    def story(self, what: str, register: Register, start: int, end: int, *more: Register) -> str:
        """A failure, with the end of the history of its place."""
        lines = [what, f"seen in [{(start - self.began) / 1e6:.3f}, {(end - self.began) / 1e6:.3f}] ms of the round",
                 "what happened to it at last:", *register.history(self.began)[-HISTORY_LINES:]]
        for other in more:
            lines += ["its sizes:", *other.history(self.began)[-HISTORY_LINES:]]
        return "\n".join(lines)
