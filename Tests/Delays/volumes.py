"""The model of volumes and snapshots: each cell of a volume is a register, and so are its size and its settings."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .failure import Failed
from .registers import Event, Register, beginning

if TYPE_CHECKING:
    from .clients import Connection
    from .world import World

#: So many blocks a volume has at most, and so many cells a block.
BLOCKS_MAX = 24
CELLS_PER_BLOCK = 8
ZEROES = 0


class Shape:
    """The sizes of a store's blocks and cells."""

    def __init__(self, block: int):
        self.block = block
        self.cell = block // CELLS_PER_BLOCK
        self.cells_max = BLOCKS_MAX * CELLS_PER_BLOCK
        self._zeroes = bytes(self.cell)

    def stamp(self, stamp: int, cell: int) -> bytes:
        """The bytes of a cell that the operation with this number has written."""
        return struct.pack("<QQ", stamp, cell) * (self.cell // 16) if stamp else self._zeroes

    def stamp_of(self, data: bytes, cell: int) -> int:
        """The number of the operation that has written a cell's bytes."""
        if data == self._zeroes:
            return ZEROES
        stamp, place = struct.unpack_from("<QQ", data)
        if place != cell or data != self.stamp(stamp, cell):
            raise Failed(f"cell {cell} holds what no write has put there: the numbers {stamp} and {place} first, and "
                         f"{len(data) - data.count(0)} bytes that are not zero")
        return stamp


class Snapshot:
    """A snapshot. Its contents are read once, and must then always be the same."""

    def __init__(self, volume: Volume, label: str, size: int):
        self.volume = volume
        self.label = label
        self.size = size
        self.contents: list[int] = []
        self.deletion: Event | None = None

    @property
    def name(self) -> str:
        return f"{self.volume.name}@{self.label}"

    def value(self, cell: int) -> int:
        return self.contents[cell] if cell < len(self.contents) else ZEROES


class Volume:
    """A volume or a throwaway."""

    def __init__(self, world: World, name: str, size: int, first: Event):
        self.world = world
        self.name = name
        shape = world.shape
        self.cells = [Register(cell, first) for cell in range(shape.cells_max)]
        self.sizes = Register(0, beginning(size))
        self.read_only = Register(0, beginning(False))
        self.has_quota = Register(0, beginning(False))
        #: Rollbacks without force, under which no client may see a change.
        self.gentle: list[Event] = []
        #: Of growths, the ones that must not make it smaller.
        self.growths: set[int] = set()
        self.snapshots: list[Snapshot] = []
        self.connections: set[Connection] = set()
        self.deletion: Event | None = None
        #: How many operations of administrators are about it, and whether one wants to be alone.
        self.uses = 0
        self.is_exclusive = False

    def possible_sizes(self, start: int, end: int) -> set[int]:
        return self.sizes.possible(start, end)

    def may_be_gone(self, end: int) -> bool:
        return self.deletion is not None and not self.deletion.is_void and self.deletion.start <= end

    def is_gone(self, start: int) -> bool:
        return self.deletion is not None and self.deletion.is_certain and self.deletion.end < start

    def see(self, cell: int, value: int, start: int, end: int, what: str) -> list[Event]:
        """Takes note of what was read. Fails where it could not be there; returns which operations can have brought it."""
        register = self.cells[cell]
        found = [event for event in register.visible(start, end) if event.value_at(cell) == value]
        where = f"{self.name}, cell {cell} (bytes {cell * self.world.shape.cell} to {(cell + 1) * self.world.shape.cell})"
        if not found:
            raise Failed(self.world.story(f"{where}: {what} has seen {value}, which cannot be there", register, start, end,
                                          self.sizes))
        if value != ZEROES:
            found = [event for event in found if not self._was_cut_off(event, cell, start)]
            if not found:
                raise Failed(self.world.story(
                    f"{where}: {what} has seen {value}, which was behind the volume's end", register, start, end, self.sizes))
        # Zeroes may be there by a fault; if that were taken for the end of a resize, what failed later would look like the fault.
        if len(found) == 1 and (value != ZEROES or not found[0].is_wide):
            found[0].was_seen(end, f"{what} of cell {cell}")
        return found

    def _was_cut_off(self, event: Event, cell: int, start: int) -> bool:
        """Whether the volume has ended before a cell since an operation wrote there, or when it did."""
        offset = cell * self.world.shape.cell
        for cut in self.sizes.events:
            if not cut.is_certain or cut.end >= start or cut.value > offset:
                continue
            if not any(other.value > offset and other.start <= event.end and other.end >= cut.start
                       for other in self.sizes.events if not other.is_void):
                return True
        return False

    def see_size(self, size: int, start: int, end: int, what: str) -> None:
        """Holds a size that was seen against what it may be.

        That a new size was seen does not mean that the old one is seen no more: clients know a smaller one before it is durable,
        and what is asked of the store says what is.
        """
        found = [event for event in self.sizes.visible(start, end) if event.value == size]
        if not found:
            raise Failed(self.world.story(f"{self.name}: {what} has seen the size {size}, which it cannot have",
                                          self.sizes, start, end))
        if all(id(event) in self.growths and self._has_shrunk(event, start) for event in found):
            raise Failed(self.world.story(f"{self.name}: a growth to {size} has made it smaller, as {what} sees",
                                          self.sizes, start, end))

    def _has_shrunk(self, growth: Event, start: int) -> bool:
        """Whether something larger was there while a growth was under way, or came after it, and nothing can have undone it."""
        events = [event for event in self.sizes.events if event is not growth and not event.is_void]
        return any(
            larger.is_certain and larger.value > growth.value and growth.start < larger.end < start
            and not any(other.value <= growth.value and other.start <= start and other.end >= larger.start for other in events)
            for larger in events)
