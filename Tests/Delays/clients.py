"""Clients: connections that do random requests, and hold each answer against the model."""

from __future__ import annotations

import errno
import random
from typing import Callable

import nbd

from .failure import Failed
from .registers import Event, now
from .volumes import CELLS_PER_BLOCK, ZEROES, Snapshot, Volume
from .world import World

#: A list of the operations that one request consists of, and the cells of each.
Parts = list[tuple[Event, range]]


class Lost(Exception):
    """The connection is gone, as it must be where the server was killed."""


class Connection:
    """One connection to a volume or a throwaway."""

    def __init__(self, world: World, volume: Volume, export: str, source: random.Random, who: str):
        self.world = world
        self.volume = volume
        self.source = source
        self.who = who
        self.closing: int | None = None
        #: The rollbacks that had not happened when this client looked, and those that had.
        self._before: set[Event] = set()
        self._behind: set[Event] = set()
        #: The client's own last write to a cell.
        self._own: dict[int, Event] = {}
        with world.interval() as start:
            try:
                self.handle = world.server.connect(export, with_map=True)
                self.size = self.handle.get_size()
                self.is_read_only = self.handle.is_read_only()
            except nbd.Error as error:
                self._not_connected(error, export, start, now())
            self.began, self.connected = start, now()
            with world.lock:
                volume.connections.add(self)
                if export in world.names and not world.may_be_present(export, start, self.connected):
                    raise Failed(world.story(f"{who} has connected to {export}, which is not there", world.names[export], start,
                                             self.connected))
                if volume.is_gone(start):
                    raise Failed(f"{who} has connected to {export}, which was deleted before")
                volume.see_size(self.size, start, self.connected, f"{who}, connecting,")
                if self.is_read_only not in volume.read_only.possible(start, self.connected):
                    raise Failed(world.story(f"{export} says to {who} that read-only is {self.is_read_only}", volume.read_only,
                                             start, self.connected))

    def _not_connected(self, error: nbd.Error, export: str, start: int, end: int) -> None:
        with self.world.lock:
            if self.world.was_dead(start, end) or self.volume.may_be_gone(end):
                raise Lost from error
            if export in self.world.names and self.world.may_be_absent(export, start, end):
                raise Lost from error
        raise Failed(f"{self.who} cannot connect to {export}: {error}") from error

    def close(self) -> None:
        with self.world.lock:
            self.closing = now()
            self.volume.connections.discard(self)
        try:
            self.handle.shutdown()
        except nbd.Error:
            # Of no account: it does not matter any more who ends it.
            pass

    # Requests

    def do_something(self) -> None:
        """One random request."""
        requests: list[tuple[int, Callable[[], None]]] = [
            (30, self.read), (2, self.read_all), (6, self.block_status), (1, self.flush)]
        if not self.is_read_only:
            requests += [(30, self.write), (8, self.zero), (8, self.trim)]
        requests = [each for each in requests if each[1].__name__ not in self.world.left_out]
        weights, calls = zip(*requests)
        call = self.source.choices(calls, weights)[0]
        self.world.count(call.__name__)
        call()

    def _cells(self) -> range:
        """Some of the cells of the volume as this client knows it: whole blocks or not, often to the end."""
        count = self.size // self.world.shape.cell
        length = min(self.source.choice((1, 2, CELLS_PER_BLOCK, CELLS_PER_BLOCK, 3 * CELLS_PER_BLOCK + 1,
                                         self.source.randrange(1, 8 * CELLS_PER_BLOCK))), count)
        first = count - length if self.source.random() < 0.45 else self.source.randrange(count - length + 1)
        end = first + length
        if self.source.random() < 0.5:
            first -= first % CELLS_PER_BLOCK
        return range(first, end)

    def read(self) -> None:
        self._read(self._cells())

    def read_all(self) -> None:
        self._read(range(self.size // self.world.shape.cell))

    def _read(self, cells: range) -> None:
        cell_bytes = self.world.shape.cell
        with self.world.interval() as start:
            try:
                data = bytes(self.handle.pread(len(cells) * cell_bytes, cells.start * cell_bytes))
            except nbd.Error as error:
                self._failed("a read", error, cells, start, now())
                return
            end = now()
            with self.world.lock:
                self._succeeded("a read", cells, start, end)
                for index, cell in enumerate(cells):
                    try:
                        value = self.world.shape.stamp_of(data[index * cell_bytes:(index + 1) * cell_bytes], cell)
                    except Failed as error:
                        raise Failed(self.world.story(f"{self.volume.name}: {self.who}: {error}", self.volume.cells[cell],
                                                      start, end, self.volume.sizes)) from error
                    self._see(cell, value, start, end, f"a read by {self.who}")

    def _see(self, cell: int, value: int, start: int, end: int, what: str) -> None:
        found = self.volume.see(cell, value, start, end, what)
        for rollback in self.volume.gentle:
            if rollback.is_void or rollback.end < self.began or rollback.start > end:
                continue
            # Zeroes are no evidence, as in `Volume.see`.
            if found == [rollback] and value == ZEROES:
                continue
            if found == [rollback]:
                own = self._own.get(cell)
                if rollback in self._before or own is not None and own.end < start:
                    raise Failed(self.world.story(
                        f"{self.volume.name}, cell {cell}: {self.who}, connected in "
                        f"[{(self.began - self.world.began) / 1e6:.3f}, {(self.connected - self.world.began) / 1e6:.3f}] ms, has "
                        f"seen the volume before a rollback without force, and now behind it, with {value}",
                        self.volume.cells[cell], start, end))
                self._behind.add(rollback)
            elif all(event.end < rollback.start for event in found):
                self._before.add(rollback)

    def block_status(self) -> None:
        cells = self._cells()
        cell_bytes = self.world.shape.cell
        extents: list[int] = []
        with self.world.interval() as start:
            try:
                self.handle.block_status(
                    len(cells) * cell_bytes, cells.start * cell_bytes,
                    lambda _context, _offset, entries, _error: extents.extend(entries) or 0)
            except nbd.Error as error:
                self._failed("block status", error, cells, start, now())
                return
            end = now()
            with self.world.lock:
                offset = cells.start * cell_bytes
                for length, flags in zip(extents[::2], extents[1::2]):
                    if flags & nbd.STATE_HOLE and not flags & nbd.STATE_ZERO:
                        raise Failed(f"{self.volume.name}: the hole at {offset} does not read as zeroes, says the server")
                    if flags & nbd.STATE_ZERO:
                        for cell in range(-(-offset // cell_bytes), (offset + length) // cell_bytes):
                            if cell in cells:
                                self._see(cell, ZEROES, start, end, f"block status for {self.who}")
                    offset += length

    def flush(self) -> None:
        with self.world.interval() as start:
            try:
                self.handle.flush()
            except nbd.Error as error:
                self._failed("a flush", error, range(0), start, now())

    def write(self, cells: range | None = None) -> None:
        """Writes some cells, or these."""
        cells = self._cells() if cells is None else cells
        if not cells:
            return
        stamp = ZEROES if self.source.random() < 0.1 else self.world.number()
        data = b"".join(self.world.shape.stamp(stamp, cell) for cell in cells)
        flags = self._fua()
        self._change("a write", stamp, self._by_block(cells), True,
                     lambda offset, length: self.handle.pwrite(data, offset, flags))

    def zero(self) -> None:
        flags = self._fua() | self.source.choice((0, nbd.CMD_FLAG_NO_HOLE))
        self._change("a zero", ZEROES, self._by_block(self._cells()), True,
                     lambda offset, length: self.handle.zero(length, offset, flags))

    def trim(self) -> None:
        flags = self._fua()
        self._change("a trim", ZEROES, self._by_block(self._cells()), False,
                     lambda offset, length: self.handle.trim(length, offset, flags))

    def _fua(self) -> int:
        return nbd.CMD_FLAG_FUA if self.source.random() < 0.1 else 0

    def _by_block(self, cells: range) -> list[range]:
        parts = []
        first = cells.start
        while first < cells.stop:
            end = min(first - first % CELLS_PER_BLOCK + CELLS_PER_BLOCK, cells.stop)
            parts.append(range(first, end))
            first = end
        return parts

    def _change(self, what: str, value: int, blocks: list[range], changes_parts: bool,
                request: Callable[[int, int], object]) -> None:
        """A request that changes cells, each block as a whole. Parts of blocks may stay, of a trim."""
        cell_bytes = self.world.shape.cell
        cells = range(blocks[0].start, blocks[-1].stop)
        parts: Parts = []
        with self.world.interval() as start:
            with self.world.lock:
                for block in blocks:
                    event = Event(f"{what} of cells {cells.start} to {cells.stop} by {self.who}", value)
                    parts.append((event, block))
                    for cell in block:
                        self.volume.cells[cell].add(event, self.world.horizon)
            try:
                request(cells.start * cell_bytes, len(cells) * cell_bytes)
            except nbd.Error as error:
                with self.world.lock:
                    for event, _ in parts:
                        event.break_off()
                self._failed(what, error, cells, start, now())
                return
            with self.world.lock:
                self._succeeded(what, cells, start, now())
                # What changes nothing, as zeroing part of a hole, need not be refused.
                if what == "a write" and self.volume.read_only.possible(start, now()) == {True}:
                    raise Failed(self.world.story(f"{self.volume.name}: {what} by {self.who} has succeeded, and it is read-only",
                                                  self.volume.read_only, start, now()))
                for event, block in parts:
                    if changes_parts or len(block) == CELLS_PER_BLOCK:
                        event.succeed()
                        self._own.update((cell, event) for cell in block)
                    else:
                        event.break_off()

    # Errors

    def _succeeded(self, what: str, cells: range, start: int, end: int) -> None:
        if self.volume.is_gone(start):
            raise Failed(f"{self.volume.name}: {what} by {self.who} has succeeded, and it was deleted before")
        stop = cells.stop * self.world.shape.cell
        if max(self.volume.possible_sizes(start, end)) < stop:
            raise Failed(self.world.story(f"{self.volume.name}: {what} by {self.who} up to {stop} has succeeded, behind the end",
                                          self.volume.sizes, start, end))

    def _failed(self, what: str, error: nbd.Error, cells: range, start: int, end: int) -> None:
        """Looks whether a request may have failed so."""
        volume, stop = self.volume, cells.stop * self.world.shape.cell
        with self.world.lock:
            # A connection ends with its server.
            if self.world.was_dead(self.began, end):
                raise Lost from error
            # What an error number of the server becomes on its way is the protocol's: EROFS is EPERM, EDQUOT is ENOSPC.
            behind_the_end = errno.ENOSPC if what in ("a write", "a zero") else errno.EINVAL
            is_right = (
                error.errnum == errno.EIO and volume.may_be_gone(end)
                or error.errnum == behind_the_end and min(volume.possible_sizes(start, end)) < stop
                or error.errnum == errno.EPERM and True in volume.read_only.possible(start, end) and what != "a read"
                or error.errnum == errno.ENOSPC and True in volume.has_quota.possible(start, end) and what != "a read")
            self.world.count(f"{what}: {errno.errorcode.get(error.errnum, error.errnum)}")
            if not is_right:
                raise Failed(self.world.story(
                    f"{volume.name}: {what} by {self.who} of bytes {cells.start * self.world.shape.cell} to {stop} has failed "
                    f"with {errno.errorcode.get(error.errnum, error.errnum)}: {error}", volume.sizes, start, end))


def read_snapshot(world: World, snapshot: Snapshot, who: str) -> list[int] | None:
    """The contents of a snapshot, cell by cell; none where it may be gone, or the server was killed."""
    with world.interval() as start:
        with world.lock:
            name = snapshot.name
        try:
            handle = world.server.connect(name)
            size = handle.get_size()
            data = bytes(handle.pread(size, 0))
            handle.shutdown()
        except nbd.Error as error:
            end = now()
            with world.lock:
                gone = [event for event in (snapshot.deletion, snapshot.volume.deletion) if event and not event.is_void]
                if world.was_dead(start, end) or world.may_be_absent(name, start, end) or any(
                        event.start <= end for event in gone):
                    return None
            raise Failed(f"{who} cannot read {name}: {error}") from error
    if size != snapshot.size:
        raise Failed(f"{name} has {size} bytes for {who}, and {snapshot.size} when it was taken")
    cell = world.shape.cell
    return [world.shape.stamp_of(data[index * cell:(index + 1) * cell], index) for index in range(size // cell)]


class Client:
    """A thread that connects and disconnects, to this volume and that."""

    def __init__(self, world: World, number: int, seed: str, longest_pause: float):
        self.world = world
        self.longest_pause = longest_pause
        self.name = f"client {number}"
        self.source = random.Random(seed)
        self.connections = 0

    def run(self) -> None:
        while not self.world.stopping.is_set():
            if not self.world.serving.wait(0.1):
                continue
            if self.source.random() < 0.1:
                self._look_at_snapshot()
            elif self.source.random() < 0.1:
                self._use_throwaway()
            else:
                self._use_volume()
            if self.longest_pause:
                self.world.stopping.wait(self.source.random() * self.longest_pause)

    def _look_at_snapshot(self) -> None:
        known = self.world.known_snapshots()
        if not known:
            return
        snapshot = self.source.choice(known)
        contents = read_snapshot(self.world, snapshot, self.name)
        if contents is not None and contents != snapshot.contents:
            index = next(index for index, pair in enumerate(zip(contents, snapshot.contents)) if pair[0] != pair[1])
            raise Failed(f"{snapshot.name} has changed: its cell {index} was {snapshot.contents[index]}, and is {contents[index]}")
        self.world.count("snapshot read again")

    def _use_volume(self) -> None:
        with self.world.lock:
            volumes = [volume for volume in self.world.volumes if volume.deletion is None]
            if not volumes:
                return
            volume = self.source.choice(volumes)
            name = volume.name
        self._use(volume, name)

    def _use_throwaway(self) -> None:
        """One throwaway, with one connection or two that share it; it may be promoted meanwhile."""
        known = self.world.known_snapshots()
        if not known:
            return
        snapshot = self.source.choice(known)
        with self.world.using(snapshot.volume) as may:
            if not may or snapshot.deletion is not None:
                return
            label = f"t{self.world.number()}"
            with self.world.lock:
                export = f"{snapshot.name}+{label}"
            first = Event(f"made as a throwaway of {snapshot.name}", values=snapshot.value)
            throwaway = Volume(self.world, export, snapshot.size, first)
            first.succeed()
            try:
                connection = self._connect(throwaway, export)
            except Lost:
                return
        others: list[Connection] = []
        try:
            if self.source.random() < 0.5:
                others.append(self._connect(throwaway, export))
            self.world.count("throwaway")
            is_offered = self.source.random() < 0.5
            if is_offered:
                with self.world.lock:
                    self.world.offered = (throwaway, export)
            for _ in range(self.source.randrange(1, 30)):
                if self.world.stopping.is_set():
                    break
                self.source.choice([connection, *others]).do_something()
        except Lost:
            pass
        finally:
            for each in [connection, *others]:
                each.close()

    def _use(self, volume: Volume, export: str) -> None:
        try:
            connection = self._connect(volume, export)
        except Lost:
            return
        try:
            for _ in range(self.source.choice((1, 2, 3, 10, 40))):
                if self.world.stopping.is_set():
                    break
                connection.do_something()
        except Lost:
            pass
        finally:
            connection.close()

    def _connect(self, volume: Volume, export: str) -> Connection:
        self.connections += 1
        return Connection(self.world, volume, export, self.source, f"{self.name}, connection {self.connections}")
