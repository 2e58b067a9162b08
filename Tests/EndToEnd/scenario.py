"""What a scenario is, and the list of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .lab import Lab

#: In virtual machines.
GUEST = "guest"
#: On this machine, with volumes mounted.
NATIVE = "native"
#: On this machine, with programs that speak NBD alone: nothing is mounted, and nobody needs to be root.
HOST = "host"
PLACES = (GUEST, NATIVE, HOST)


@dataclass(frozen=True)
class Scenario:
    """Something that users do, as a function that fails where it does not work."""

    name: str
    run: Callable[[Lab], None]
    #: Where it runs.
    places: tuple[str, ...]
    #: Whether it is repeated with each file system that this machine's kernel has, where it runs natively.
    on_each_file_system: bool
    #: Programs that its guests have beside the usual ones.
    programs: tuple[str, ...]
    #: What it may take at most, in seconds.
    limit: int


SCENARIOS: list[Scenario] = []


def scenario(name: str, *, places: tuple[str, ...] = (GUEST, NATIVE), on_each_file_system: bool = False,
             programs: tuple[str, ...] = (), limit: int = 300) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Adds a function to the list of scenarios."""

    def add(function: Callable[[Lab], None]) -> Callable[[Lab], None]:
        SCENARIOS.append(Scenario(name, function, places, on_each_file_system, programs, limit))
        return function

    return add
