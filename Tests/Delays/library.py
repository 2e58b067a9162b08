"""The test's end of delays.c: which calls wait, how long, and whether they have been met."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

from .failure import Failed

READ, WRITE, SYNC = 1, 2, 4
BEFORE, AFTER = 0, 1

_CALLS = 8
_RULES = 16
_FIELDS = ("left", "kinds", "moment", "size", "first", "end", "milliseconds", "released", "hits", "waiting")
_BYTES = 8 * (_CALLS + _RULES * len(_FIELDS))


class Delays:
    """The file that library and test share. It must be there before the server is started."""

    def __init__(self, path: Path):
        self.path = path
        with path.open("w+b") as file:
            file.truncate(_BYTES)
            self._memory = mmap.mmap(file.fileno(), _BYTES)
        self._used = 0

    def environment(self) -> dict[str, str]:
        return {"LACUNA_DELAYS_CONTROL": str(self.path)}

    def calls(self, kind: int) -> int:
        """How many calls of a kind there have been."""
        return self.get(8 * kind)

    def rule(self) -> Rule:
        """A rule that stops nothing yet."""
        if self._used == _RULES:
            raise Failed(f"a test has no more than {_RULES} rules")
        rule = Rule(self, 8 * (_CALLS + self._used * len(_FIELDS)))
        self._used += 1
        return rule

    def stop(self, kinds: int, moment: int, *, size: int = -1, count: int = 1, seconds: float = 5) -> Rule:
        """The next `count` calls of these kinds and of this many bytes wait until they are released, or for so many seconds."""
        rule = self.rule()
        rule.stop(kinds, moment, size=size, count=count, seconds=seconds)
        return rule

    def get(self, place: int) -> int:
        return struct.unpack_from("<q", self._memory, place)[0]

    def put(self, place: int, value: int) -> None:
        # One store of eight bytes that are aligned, which the library sees whole.
        struct.pack_into("<q", self._memory, place, value)


class Rule:
    """Which calls wait."""

    def __init__(self, delays: Delays, place: int):
        self._delays = delays
        self._place = place

    def __getitem__(self, name: str) -> int:
        return self._delays.get(self._place + 8 * _FIELDS.index(name))

    def __setitem__(self, name: str, value: int) -> None:
        self._delays.put(self._place + 8 * _FIELDS.index(name), value)

    def stop(self, kinds: int, moment: int, *, size: int = -1, first: int = 0, end: int = -1, count: int = 1,
             seconds: float = 5) -> None:
        """Stops the next `count` calls of these kinds, of this many bytes and from this range of offsets; what it has stopped before
        is of no account any more."""
        self["left"] = 0
        for name, value in (("kinds", kinds), ("moment", moment), ("size", size), ("first", first), ("end", end),
                            ("milliseconds", int(seconds * 1000)), ("released", 0), ("hits", 0), ("left", count)):
            self[name] = value

    @property
    def hits(self) -> int:
        return self["hits"]

    def wait_for(self, hits: int = 1, seconds: float = 20) -> None:
        """Waits until so many calls have been stopped. Without them a test would test nothing, and so it fails."""
        if not self.is_met(hits, seconds):
            raise Failed(f"in {seconds:g} s the server has made {self.hits} calls that the test would stop, of {hits}")

    def is_met(self, hits: int = 1, seconds: float = 20) -> bool:
        """Whether so many calls are stopped before so many seconds have passed."""
        end = time.monotonic() + seconds
        while self.hits < hits:
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def release(self) -> None:
        """Lets all go on that wait, and stops no more."""
        self["left"] = 0
        self["released"] = 1
