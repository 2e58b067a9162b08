"""What a place may hold, decided from when operations began and ended: the heart of the model.

An operation takes effect at one moment between its beginning and its end, which nobody knows; so several values may be right at
the same time. Where a value was read that only one operation can have brought, that one has taken effect before the read's end,
and no later read may miss it.
"""

from __future__ import annotations

import time
from typing import Any, Callable

#: Of what is not over.
NEVER = 1 << 62


def now() -> int:
    """Nanoseconds."""
    return time.monotonic_ns()


class Event:
    """An operation, or the part of one that takes effect as a whole: on one block, or on a volume that is rolled back."""

    __slots__ = ("start", "end", "is_certain", "is_void", "value", "values", "text", "witness", "is_wide")

    def __init__(self, text: str, value: Any = None, values: Callable[[int], Any] | None = None, *, start: int | None = None,
                 is_wide: bool = False):
        self.start = now() if start is None else start
        self.end = NEVER
        #: Whether it has taken effect. Else it may have, or yet will.
        self.is_certain = False
        #: Whether it has surely not, and never will.
        self.is_void = False
        self.value = value
        self.values = values
        #: Whether it is about a volume as a whole.
        self.is_wide = is_wide
        self.text = text
        #: Who has shown that it has taken effect, before it was over.
        self.witness = ""

    def value_at(self, place: int) -> Any:
        return self.value if self.values is None else self.values(place)

    def succeed(self) -> None:
        self.end = min(self.end, now())
        self.is_certain = True

    def break_off(self) -> None:
        """It has failed, and may have taken effect all the same."""
        self.end = min(self.end, now())

    def was_seen(self, by: int, witness: str) -> None:
        """It has taken effect at the time `by`."""
        if by < self.end or not self.is_certain:
            self.witness = f", as {witness} has seen"
        self.end = min(self.end, by)
        self.is_certain = True

    def described(self, place: int, began: int) -> str:
        end = "not over" if self.end == NEVER else f"{(self.end - began) / 1e6:.3f}"
        sure = "refused" if self.is_void else "done" if self.is_certain else "may have been done"
        return f"[{(self.start - began) / 1e6:.3f}, {end}] ms: {self.text}: value {self.value_at(place)}, {sure}{self.witness}"


def beginning(value: Any) -> Event:
    """What has always been so."""
    event = Event("the beginning", value, start=-1)
    event.end, event.is_certain = -1, True
    return event


class Register:
    """One place, and all that happens to it."""

    __slots__ = ("place", "events")

    def __init__(self, place: int, first: Event):
        self.place = place
        self.events = [first]

    def add(self, event: Event, horizon: Callable[[], int] | None = None) -> None:
        """Adds an operation that begins. What nobody can see any more, who began at the horizon or later, is forgotten, where
        there is one."""
        if horizon is not None and len(self.events) >= 96:
            barrier = self._barrier(horizon())
            self.events = [event for event in self.events if not event.is_void and event.end >= barrier]
        self.events.append(event)

    def _barrier(self, start: int) -> int:
        """What has ended before this has been replaced for those who begin at `start`."""
        return max((event.start for event in self.events if event.is_certain and event.end < start), default=-2)

    def visible(self, start: int, end: int) -> list[Event]:
        """The operations of which one must be what a read sees that takes from `start` to `end`."""
        barrier = self._barrier(start)
        return [event for event in self.events
                if event.start <= end and event.end >= barrier and not event.is_void]

    def possible(self, start: int, end: int) -> set[Any]:
        """The values that a read may see."""
        return {event.value_at(self.place) for event in self.visible(start, end)}

    def times_of(self, value: Any, start: int, end: int) -> list[tuple[int, int]]:
        """The times between two when the place may have held a value."""
        times = []
        for event in self.events:
            if event.is_void or event.value_at(self.place) != value:
                continue
            replaced = min((later.end for later in self.events if later.is_certain and later.start > event.end), default=NEVER)
            first, last = max(event.start, start), min(replaced, end)
            if first <= last:
                times.append((first, last))
        return times

    def history(self, began: int) -> list[str]:
        return [event.described(self.place, began) for event in sorted(self.events, key=lambda event: event.start)]
