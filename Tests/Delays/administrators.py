"""Administrators: random operations on volumes and snapshots, over the control socket, and what the model makes of them."""

from __future__ import annotations

import random
from typing import Any, Callable

from .administration import Administration, Gone, Refused
from .clients import Connection, Lost, read_snapshot
from .failure import Failed
from .library import AFTER, BEFORE, SYNC, WRITE, Rule
from .registers import Event, now
from .server import lines
from .volumes import BLOCKS_MAX, CELLS_PER_BLOCK, ZEROES, Snapshot, Volume
from .world import World

SNAPSHOTS_MAX = 4

#: What the administrators of a round do, and how often: of all kinds, or what can get in each other's way.
THEMES: dict[str, dict[str, int]] = {
    "all": {"resize": 10, "roll_back": 10, "snapshot": 6, "clone": 2, "delete_volume": 1, "delete_snapshot": 3, "rename": 2,
            "set_read_only": 3, "set_quota": 3, "set_reservation": 2, "promote": 3, "look": 4, "map": 3, "compare": 2,
            "check": 1},
    "sizes": {"resize": 20, "snapshot": 1, "delete_snapshot": 1, "look": 2, "map": 1},
    "rollbacks": {"roll_back": 12, "resize": 12, "snapshot": 3, "delete_snapshot": 2, "look": 3},
}


class Administrator:
    """A thread with a connection to the control socket."""

    def __init__(self, world: World, number: int, seed: str, theme: str, rule: Rule):
        self.world = world
        self.rule = rule
        self.name = f"administrator {number}"
        self.source = random.Random(seed)
        self.administration: Administration | None = None
        self.connecting = 0
        weights = THEMES[theme]
        names = [name for name in weights if name not in world.left_out]
        self.weights = [weights[name] for name in names]
        self.operations: list[Callable[[], None]] = [getattr(self, name) for name in names]

    def run(self) -> None:
        while not self.world.stopping.is_set():
            if not self.world.serving.wait(0.1):
                continue
            operation = self.source.choices(self.operations, self.weights)[0]
            try:
                if self.administration is None:
                    self.connecting = now()
                    self.administration = self.world.server.administration()
                operation()
            except Gone as error:
                self.administration = None
                with self.world.lock:
                    if not self.world.was_dead(self.connecting, now()):
                        raise Failed(f"{self.name}: {error}, and nobody has killed the server") from error
            self.world.stopping.wait(self.source.choice((0, 0.01, 0.05)) * self.source.random())
        if self.administration is not None:
            self.administration.close()

    # Calls

    def _call(self, method: str, allowed: tuple[str, ...], events: list[Event], changed: Volume | None = None,
              **parameters: Any) -> dict[str, Any] | None:
        """Calls, and says of the events what came of them; none where the server has refused, for one of the reasons allowed:
        `readOnly` only where the volume that would change may have been so."""
        assert self.administration is not None
        start = now()
        self.world.count(method)
        try:
            result = self.administration.call(method, **parameters)
        except Refused as error:
            self.world.count(f"{method}: {error.code}")
            with self.world.lock:
                is_right = error.code in allowed and (
                    error.code != "readOnly" or changed is not None and True in changed.read_only.possible(start, now()))
                if not is_right:
                    raise Failed(f"{self.name}: {error} ({error.code}); asked for {parameters}") from error
                for event in events:
                    if event.is_certain:
                        raise Failed(f"{self.name}: {error}; but it has happened: {event.text}") from error
                    event.is_void = True
                    event.break_off()
            return None
        except Gone:
            with self.world.lock:
                for event in events:
                    event.break_off()
            raise
        with self.world.lock:
            for event in events:
                event.succeed()
        return result

    def _choose_volume(self) -> Volume | None:
        with self.world.lock:
            volumes = [volume for volume in self.world.volumes if volume.deletion is None]
            return self.source.choice(volumes) if volumes else None

    def _choose_snapshot(self) -> Snapshot | None:
        known = self.world.known_snapshots()
        return self.source.choice(known) if known else None

    def _size(self) -> int:
        """A size that is a multiple of a cell, and mostly not of a block."""
        cells = self.source.randrange(2 * CELLS_PER_BLOCK, BLOCKS_MAX * CELLS_PER_BLOCK + 1)
        return cells * self.world.shape.cell

    def _hold_up(self, kinds: int, moment: int, size: int = -1) -> None:
        """Often the next call of a kind is late by much: what comes meanwhile can pass it."""
        if self.source.random() < 0.6:
            self.rule.stop(kinds, moment, size=size, seconds=self.source.choice((0.01, 0.03, 0.1)))

    # Operations that change a volume

    def resize(self) -> None:
        """Larger; or smaller, to whole blocks."""
        volume = self._choose_volume()
        with self.world.using(volume) as may, self.world.interval() as start:
            if not may or volume is None:
                return
            with self.world.lock:
                before, largest = max(volume.possible_sizes(start, start)), BLOCKS_MAX * self.world.shape.block
                may_shrink = self.source.random() < 0.15 or before == largest
                if may_shrink:
                    size = self.source.randrange(1, BLOCKS_MAX // 2) * self.world.shape.block
                else:
                    # Most are larger when they are asked for.
                    size = min(before + self.source.randrange(1, 12) * self.world.shape.cell, largest)
                force = self.source.random() < 0.8
                text = f"resize to {size}{' --shrink' if may_shrink else ''}{' --force' if force else ''} by {self.name}"
                resized, cut = Event(text, size), Event(text, ZEROES, is_wide=True)
                volume.sizes.add(resized)
                if not may_shrink:
                    volume.growths.add(id(resized))
                for register in volume.cells[size // self.world.shape.cell:]:
                    register.add(cut, self.world.horizon)
            allowed = ["busy", "readOnly"] + ([] if may_shrink else ["invalidParameter"])
            if self.source.random() < 0.5:
                # A client that is in the middle of something.
                self._hold_up(WRITE, AFTER, self.world.shape.block)
                self.rule.is_met(seconds=0.02)
            done = self._call("volume.resize", tuple(allowed), [resized, cut], volume,
                              name=volume.name, size=size, shrink=may_shrink, force=force)
            if done is not None:
                with self.world.lock:
                    volume.see_size(done["size"], start, now(), f"the answer to {self.name}")
            if done is not None and size > before:
                self._write_behind(volume, before)

    def _write_behind(self, volume: Volume, end: int) -> None:
        """Writes behind a volume's old end, at once: others who know no other may be about to change what lies before."""
        try:
            connection = Connection(self.world, volume, volume.name, self.source, f"{self.name}, writing behind the end,")
            try:
                if not connection.is_read_only:
                    first = end // self.world.shape.cell
                    connection.write(range(first, min(first + self.source.randrange(1, CELLS_PER_BLOCK),
                                                      connection.size // self.world.shape.cell)))
            finally:
                connection.close()
        except Lost:
            pass

    def roll_back(self) -> None:
        """To a snapshot, with force or without."""
        snapshot = self._choose_snapshot()
        with self.world.using(snapshot.volume if snapshot else None) as may, self.world.interval():
            if not may or snapshot is None or snapshot.deletion is not None:
                return
            volume = snapshot.volume
            force = self.source.random() < 0.5 or "gentle" in self.world.left_out
            with self.world.lock:
                text = f"rollback to {snapshot.label}{' --force' if force else ''} by {self.name}"
                resized, changed = Event(text, snapshot.size), Event(text, values=snapshot.value, is_wide=True)
                volume.sizes.add(resized)
                for register in volume.cells:
                    register.add(changed, self.world.horizon)
                if not force:
                    volume.gentle.append(changed)
                connected = {each for each in volume.connections}
            self._hold_up(SYNC, BEFORE)
            allowed = ("busy", "readOnly")
            done = self._call("volume.rollback", allowed, [resized, changed], volume, snapshot=snapshot.name, force=force)
            if done is None:
                return
            with self.world.lock:
                stayed = [each for each in connected & volume.connections if each.closing is None]
                if not force and stayed:
                    raise Failed(f"{volume.name}: a {text} was done, under {stayed[0].who}")

    def set_read_only(self) -> None:
        volume = self._choose_volume()
        with self.world.using(volume) as may:
            if not may or volume is None:
                return
            value, force = self.source.random() < 0.3, self.source.random() < 0.6
            with self.world.lock:
                event = Event(f"set by {self.name}", value)
                volume.read_only.add(event)
            self._call("volume.set", ("busy",), [event], name=volume.name, readOnly=value, force=force)

    def set_quota(self) -> None:
        volume = self._choose_volume()
        with self.world.using(volume) as may:
            if not may or volume is None:
                return
            quota = self.source.choice((0, 0, self.source.randrange(1, BLOCKS_MAX) * self.world.shape.block))
            with self.world.lock:
                event = Event(f"set to {quota} by {self.name}", quota > 0)
                volume.has_quota.add(event)
            # What it has reserved may be more.
            self._call("volume.set", ("invalidParameter",) if quota else (), [event], name=volume.name, quota=quota)

    def set_reservation(self) -> None:
        volume = self._choose_volume()
        with self.world.using(volume) as may:
            if not may or volume is None:
                return
            reservation = self.source.choice((0, self.source.randrange(1, BLOCKS_MAX) * self.world.shape.block))
            # More than size or quota is refused.
            allowed = ("invalidParameter",) if reservation else ()
            self._call("volume.set", allowed, [], name=volume.name, reservation=reservation)

    # Operations on names

    def snapshot(self) -> None:
        """Of one volume, or of several at one instant."""
        with self.world.naming, self.world.interval() as start:
            first, second = self._choose_volume(), self._choose_volume()
            with self.world.using(first) as may, self.world.using(second if second is not first else None) as may_second:
                if not may or first is None:
                    return
                volumes = [first] + ([second] if may_second and second is not None else [])
                with self.world.lock:
                    volumes = [each for each in volumes if len(each.snapshots) < SNAPSHOTS_MAX]
                    if not volumes:
                        return
                    names = [f"{volume.name}@s{self.world.number()}" for volume in volumes]
                    events = [self.world.name_event(name, True, f"snapshot by {self.name}") for name in names]
                result = self._call("snapshot.create", (), events, names=names)
                end = now()
                if result is None:
                    return
                taken = [Snapshot(volume, name.split("@")[1], each["size"])
                         for volume, name, each in zip(volumes, names, result["snapshots"])]
                contents = [self._contents(snapshot) for snapshot in taken]
                with self.world.lock:
                    places = []
                    for snapshot, cells in zip(taken, contents):
                        places.append((f"{snapshot.name}, size", snapshot.volume.sizes, snapshot.size))
                        places += [(f"{snapshot.name}, cell {cell}", snapshot.volume.cells[cell], value)
                                   for cell, value in enumerate(cells)]
                    self._were_at_one_instant(places, start, end)
                    for snapshot, cells in zip(taken, contents):
                        snapshot.contents = cells
                        snapshot.volume.snapshots.append(snapshot)

    def _contents(self, snapshot: Snapshot) -> list[int]:
        contents = read_snapshot(self.world, snapshot, self.name)
        if contents is None:
            # While names are held nobody kills the server.
            raise Failed(f"{snapshot.name} was taken, and cannot be read")
        return contents

    def _were_at_one_instant(self, places: list[tuple[str, Any, int]], start: int, end: int) -> None:
        """Fails unless there is an instant from `start` to `end` at which all the places may have held these values."""
        all_times = [(what, register, value, register.times_of(value, start, end)) for what, register, value in places]
        instants = {start} | {first for *_, times in all_times for first, _ in times}
        worst: tuple[str, Any, int] | None = None
        fewest = len(places) + 1
        for instant in sorted(instants):
            wrong = [(what, register, value) for what, register, value, times in all_times
                     if not any(first <= instant <= last for first, last in times)]
            if not wrong:
                return
            if len(wrong) < fewest:
                fewest, worst = len(wrong), wrong[0]
        assert worst is not None
        what, register, value = worst
        raise Failed(self.world.story(
            f"{what}: it has {value}; at no instant can all {len(places)} places have been as in the snapshot or clone "
            f"({fewest} are wrong at best)", register, start, end))

    def clone(self) -> None:
        """Of a snapshot, or of a volume."""
        with self.world.naming, self.world.interval() as start:
            with self.world.lock:
                if len(self.world.volumes) >= self.world.volumes_max:
                    return
            snapshot = self._choose_snapshot() if self.source.random() < 0.5 else None
            volume = snapshot.volume if snapshot else self._choose_volume()
            with self.world.using(volume) as may:
                if not may or volume is None or snapshot and snapshot.deletion is not None:
                    return
                name = f"c{self.world.number()}"
                with self.world.lock:
                    event = self.world.name_event(name, True, f"clone by {self.name}")
                source = snapshot.name if snapshot else volume.name
                result = self._call("volume.clone", (), [event], source=source, name=name)
                if result is None:
                    return
                end = now()
                handle = self.world.server.connect(name)
                size, cell_bytes = handle.get_size(), self.world.shape.cell
                data = bytes(handle.pread(size, 0))
                handle.shutdown()
                contents = [self.world.shape.stamp_of(data[index * cell_bytes:(index + 1) * cell_bytes], index)
                            for index in range(size // cell_bytes)]
                with self.world.lock:
                    if snapshot:
                        if size != snapshot.size or contents != snapshot.contents:
                            raise Failed(f"the clone {name} of {snapshot.name} is not the same")
                    else:
                        places = [(f"{name}, clone of {volume.name}, size", volume.sizes, size)]
                        places += [(f"{name}, clone of {volume.name}, cell {cell}", volume.cells[cell], value)
                                   for cell, value in enumerate(contents)]
                        self._were_at_one_instant(places, start, end)
                    first = Event(f"clone of {volume.name}", values=_padded(contents), start=start)
                    first.succeed()
                    self.world.volumes.append(Volume(self.world, name, size, first))

    def delete_volume(self) -> None:
        volume = self._choose_volume()
        with self.world.naming, self.world.using(volume, alone=True) as may:
            if not may or volume is None:
                return
            with self.world.lock:
                if len(self.world.volumes) < 2:
                    return
                text = f"deletion by {self.name}"
                event = self.world.name_event(volume.name, False, text)
                events = [event] + [self.world.name_event(snapshot.name, False, text) for snapshot in volume.snapshots]
                volume.deletion = event
            force = self.source.random() < 0.7
            done = self._call("volume.delete", ("busy",), events, names=[volume.name], snapshots=True, force=force)
            with self.world.lock:
                if done is None:
                    volume.deletion = None
                else:
                    self.world.volumes.remove(volume)

    def delete_snapshot(self) -> None:
        snapshot = self._choose_snapshot()
        with self.world.naming, self.world.using(snapshot.volume if snapshot else None, alone=True) as may:
            if not may or snapshot is None or snapshot.deletion is not None:
                return
            with self.world.lock:
                event = self.world.name_event(snapshot.name, False, f"deletion by {self.name}")
                snapshot.deletion = event
            force = self.source.random() < 0.7
            done = self._call("volume.delete", ("busy",), [event], names=[snapshot.name], force=force)
            with self.world.lock:
                if done is None:
                    snapshot.deletion = None
                else:
                    snapshot.volume.snapshots.remove(snapshot)

    def rename(self) -> None:
        """A volume, with its snapshots. A name is never used again, so that it stands for one thing alone."""
        volume = self._choose_volume()
        with self.world.naming, self.world.using(volume, alone=True) as may:
            if not may or volume is None:
                return
            with self.world.lock:
                old, new = volume.name, f"r{self.world.number()}"
                text = f"renamed from {old} to {new} by {self.name}"
                labels = [""] + [f"@{snapshot.label}" for snapshot in volume.snapshots]
                events = [self.world.name_event(name + label, is_there, text)
                          for label in labels for name, is_there in ((old, False), (new, True))]
            done = self._call("volume.rename", (), events, name=old, to=new)
            if done is not None:
                with self.world.lock:
                    volume.name = new

    def promote(self) -> None:
        with self.world.naming:
            with self.world.lock:
                offered, self.world.offered = self.world.offered, None
                if offered is None or len(self.world.volumes) >= self.world.volumes_max:
                    return
                throwaway, export = offered
                name = f"p{self.world.number()}"
                event = self.world.name_event(name, True, f"promoted by {self.name}")
            # It may have gone with its last client.
            done = self._call("volume.promote", ("noSuchVolume",), [event], name=export, to=name)
            if done is not None:
                with self.world.lock:
                    throwaway.name = name
                    self.world.volumes.append(throwaway)

    # Looks

    def look(self) -> None:
        """At one volume, or at all."""
        volume = self._choose_volume()
        with self.world.using(volume) as may, self.world.interval() as start:
            if not may or volume is None:
                return
            if self.source.random() < 0.3:
                result = self._call("volume.list", (), [], space=self.source.random() < 0.5)
                infos = [each for each in (result or {"volumes": []})["volumes"] if each["name"] == volume.name]
                if len(infos) != 1:
                    raise Failed(f"the list has {volume.name} {len(infos)} times")
                info = infos[0]
            else:
                result = self._call("volume.info", (), [], name=volume.name, space=self.source.random() < 0.5)
                assert result is not None
                info = result
            end = now()
            with self.world.lock:
                volume.see_size(info["size"], start, end, f"{self.name}, looking,")
                for key, value, register in (("read-only", info["readOnly"], volume.read_only),
                                             ("a quota", "quota" in info, volume.has_quota)):
                    if value not in register.possible(start, end):
                        raise Failed(self.world.story(f"{volume.name}: {key} is {value}", register, start, end))

    def map(self) -> None:
        """Where it is empty there must be zeroes."""
        volume = self._choose_volume()
        with self.world.using(volume) as may, self.world.interval() as start:
            if not may or volume is None:
                return
            result = self._call("volume.map", (), [], name=volume.name)
            assert result is not None
            end, offset, cell_bytes = now(), 0, self.world.shape.cell
            with self.world.lock:
                for extent in result["extents"]:
                    if extent["offset"] != offset:
                        raise Failed(f"{volume.name}: the map has a gap at {offset}: {result}")
                    offset += extent["length"]
                    if extent["kind"] != "data":
                        for cell in range(-(-extent["offset"] // cell_bytes), offset // cell_bytes):
                            volume.see(cell, ZEROES, start, end, f"the map for {self.name}")
                volume.see_size(offset, start, end, f"the map for {self.name}")

    def compare(self) -> None:
        """Two snapshots of one volume: where they differ, the server must say so."""
        old = self._choose_snapshot()
        with self.world.using(old.volume if old else None) as may:
            if not may or old is None or old.deletion is not None:
                return
            with self.world.lock:
                new = self.source.choice([each for each in old.volume.snapshots if each.contents])
            result = self._call("volume.diff", (), [], **{"from": old.name, "to": new.name})
            assert result is not None
            kinds: dict[int, str] = {}
            cell_bytes = self.world.shape.cell
            for extent in result["extents"]:
                for cell in range(extent["offset"] // cell_bytes, -(-(extent["offset"] + extent["length"]) // cell_bytes)):
                    kinds[cell] = extent["kind"]
            for cell, value in enumerate(new.contents):
                if old.value(cell) != value and cell not in kinds:
                    raise Failed(f"the difference of {old.name} and {new.name} leaves cell {cell} out, which was "
                                 f"{old.value(cell)} and is {value}")
                if kinds.get(cell) == "zero" and value != ZEROES:
                    raise Failed(f"the difference of {old.name} and {new.name} calls cell {cell} zeroes, which is {value}")

    def check(self) -> None:
        result = self._call("store.check", (), [], data=self.source.random() < 0.5)
        findings = lines((result or {"findings": []})["findings"])
        if findings:
            raise Failed("\n".join(["the check of the served store has findings:", *findings[:20]]))


def _padded(contents: list[int]) -> Callable[[int], int]:
    return lambda cell: contents[cell] if cell < len(contents) else ZEROES

