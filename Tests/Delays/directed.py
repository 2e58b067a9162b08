"""Races that were found once, each brought about on purpose."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Callable

import nbd

from .administration import Gone, Refused
from .failure import Failed, expect
from .library import AFTER, BEFORE, READ, SYNC, WRITE, Delays, Rule
from .server import Server
from .task import Task

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 4096
#: A volume's end inside of its tenth block.
OLD_END = 40_060

Case = Callable[["Stage"], None]
CASES: list[Case] = []


def case(function: Case) -> Case:
    """Adds a case, whose name is that of the function."""
    CASES.append(function)
    return function


class Stage:
    """A server with the volume `v`, and the library that makes it wait."""

    def __init__(self, folder: Path):
        self.delays = Delays(folder / "control")
        self.folder = folder
        self.server: Server | None = None
        self.clients: list[nbd.NBD] = []

    def connect(self, export: str = "v") -> nbd.NBD:
        """A client, which stays until the end of the case where the case does not end it."""
        assert self.server is not None
        client = self.server.connect(export)
        self.clients.append(client)
        return client

    def disconnect(self, client: nbd.NBD) -> None:
        """Ends a client, and waits until the server knows it."""
        assert self.server is not None
        self.clients.remove(client)
        client.shutdown()
        with self.server.administration() as administration:
            end = time.monotonic() + 20
            while administration.call("volume.info", name="v")["clients"] > len(self.clients):
                expect(time.monotonic() < end, "the server does not notice that a client has gone")
                time.sleep(0.01)

    def serve(self, size: int, *parameters: str) -> Server:
        self.server = Server(
            self.folder, "volume=v", f"size={size}", *parameters, environment=self.delays.environment())
        self.server.start()
        expect(self.delays.calls(READ) > 0, "the library of delays sees no call of the server")
        # What is to be stopped must not be what the server does by itself after its start.
        self.server.must("set", "v", "--quota", "none")
        return self.server

    def stop_sync(self, seconds: float = 10) -> Rule:
        """The next sync waits. Where nobody flushes it is the first of a checkpoint: what is planned is decided, and nothing of
        it can be seen yet."""
        return self.delays.stop(SYNC, BEFORE, seconds=seconds)

    def end_and_check(self) -> None:
        assert self.server is not None
        # nbdkit ends when its last client has gone.
        for client in self.clients:
            client.shutdown()
        self.server.stop()
        self.server.check()

    def end(self) -> None:
        if self.server is not None:
            self.server.kill()


def run(function: Case, folder: Path) -> None:
    """Runs a case in a folder of its own."""
    stage = Stage(folder)
    try:
        function(stage)
    except (Failed, Gone, Refused, nbd.Error) as error:
        log = f"\n{stage.server.log_tail()}" if stage.server else ""
        raise Failed(f"{error}{log}") from error
    finally:
        stage.end()


def settle() -> None:
    """Time for what a client has sent to come to where it waits. Too little makes a case see less, never fail."""
    time.sleep(0.4)


def refused(error: nbd.Error, *allowed: int) -> None:
    """A request may be refused because its volume changes under it, in no other way."""
    if error.errnum not in allowed:
        raise Failed(f"a request was refused with {errno.errorcode.get(error.errnum, error.errnum)}: {error}")


def expect_bytes(what: str, found: bytes | bytearray, expected: bytes) -> None:
    if bytes(found) != expected:
        index = next(index for index, pair in enumerate(zip(found, expected)) if pair[0] != pair[1])
        wrong = sum(1 for pair in zip(found, expected) if pair[0] != pair[1])
        raise Failed(f"{what}: {wrong} of {len(expected)} bytes are not what they must be; "
                     f"byte {index} is {found[index]}, not {expected[index]}")


# What a request to a volume's old end may do where the volume becomes larger


@case
def zero_to_the_old_end_while_it_grows(stage: Stage) -> None:
    """A client zeroes up to the end; before it is done, the volume grows, and another client writes behind the old end."""
    server = stage.serve(OLD_END)
    old = stage.connect()
    old.pwrite(b"A" * OLD_END, 0)
    old.flush()
    # A volume takes blocks in runs, which it may write beforehand, under a lock: that write is not the one to be stopped.
    for _ in range(3):
        old.pwrite(b"A" * BLOCK, 0)
    # The zeroes begin inside a block, which is written before the whole ones go.
    edge = stage.delays.stop(WRITE, AFTER, size=BLOCK)
    zero = Task(lambda: old.zero(OLD_END - 100, 100))
    edge.wait_for()
    server.must("resize", "v", "64K")
    new = stage.connect()
    new.pwrite(b"B" * 500, OLD_END)
    new.flush()
    edge.release()
    zero.result()
    expect_bytes("flushed bytes behind the old end", new.pread(500, OLD_END), b"B" * 500)
    expect_bytes("before the zeroes", new.pread(100, 0), b"A" * 100)
    expect_bytes("the zeroes", new.pread(OLD_END - 100, 100), bytes(OLD_END - 100))
    stage.end_and_check()


@case
def trim_to_the_old_end_while_it_grows(stage: Stage) -> None:
    """A client trims up to the end and waits, since the journal is full, for two checkpoints; the first one is the volume's
    growth, and during the second one another client writes behind the old end."""
    server = stage.serve(OLD_END, "journal=64K")
    server.must("create", "--volume", "filler", "--size", "1G")
    old, filler = stage.connect(), stage.connect("filler")
    old.pwrite(b"A" * OLD_END, 0)
    with server.administration() as administration:
        def used() -> int:
            return administration.call("store.stats")["journal"]["used"]

        journal = administration.call("store.info")["journalSize"]
        # What is in the journal before the growth becomes free with it, and is room for the write behind the old end.
        administration.call("volume.set", name="filler", quota=0)
        offset = 0
        while used() < journal // 4:
            filler.trim(BLOCK, offset)
            offset += BLOCK
        growth_sync = stage.stop_sync(20)

        def grow() -> None:
            # Without the command, which looks at the volume first: that would bring the catalog up to date, by a checkpoint.
            with server.administration() as other:
                other.call("volume.resize", name="v", size=64 * KIB)

        growth = Task(grow)
        growth_sync.wait_for()
        while offset < 64 * MIB:
            filling = Task(lambda at=offset: filler.trim(BLOCK, at))
            offset += BLOCK
            if not filling.has_ended(1):
                break
    trim = Task(lambda: old.trim(OLD_END, 0))
    expect(not trim.has_ended(0.4), f"{offset // BLOCK} changes do not fill a journal of {journal} bytes")
    # Sync by sync to the end of the growth's checkpoint, and to the first one of the next.
    next_sync = growth_sync
    while not growth.has_ended(0.5):
        sync, next_sync = next_sync, stage.stop_sync(20)
        sync.release()
        next_sync.wait_for()
    growth.result()
    new = stage.connect()
    behind = Task(lambda: new.pwrite(b"B" * 500, OLD_END))
    is_between = behind.has_ended(5)
    next_sync.release()
    behind.result()
    filling.result()
    trim.result()
    expect(is_between, "the write behind the old end was not done before the trim, so that nothing was tested")
    expect_bytes("acknowledged bytes behind the old end", new.pread(500, OLD_END), b"B" * 500)
    stage.end_and_check()


def _reach_the_old_end(stage: Stage, request: Callable[[nbd.NBD], object], behind_the_end: int) -> None:
    """A request up to the old end waits while `rollback --force` brings a larger snapshot."""
    server = stage.serve(64 * KIB)
    client = stage.connect()
    client.pwrite(b"S" * 64 * KIB, 0)
    server.must("snapshot", "v@large")
    stage.disconnect(client)
    server.must("resize", "v", "36K", "--yes", "--force")
    server.must("resize", "v", str(OLD_END))
    client = stage.connect()
    client.pwrite(b"A" * OLD_END, 0)
    sync = stage.stop_sync()
    rollback = Task(lambda: server.lacuna("rollback", "v@large", "--yes", "--force"))
    sync.wait_for()
    waiting = Task(lambda: request(client))
    settle()
    sync.release()
    done = rollback.result()
    expect(done.returncode == 0, f"rollback --force: {done.stderr}")
    try:
        waiting.result()
    except nbd.Error as error:
        refused(error, behind_the_end)
    late = stage.connect()
    expect(late.get_size() == 64 * KIB, f"the volume has {late.get_size()} bytes after the rollback")
    expect_bytes("the snapshot's bytes behind the old end",
                 late.pread(64 * KIB - OLD_END, OLD_END), b"S" * (64 * KIB - OLD_END))
    found = bytes(late.pread(OLD_END, 0))
    expect(set(found) <= {0, ord("S")}, "before the old end there is something else than zeroes and the snapshot's bytes")
    stage.end_and_check()


@case
def trim_to_the_old_end_while_a_rollback_brings_more(stage: Stage) -> None:
    _reach_the_old_end(stage, lambda client: client.trim(OLD_END, 0), errno.EINVAL)


@case
def zero_to_the_old_end_while_a_rollback_brings_more(stage: Stage) -> None:
    # From the first byte of a block on, so that nothing has to be written before the whole blocks go.
    _reach_the_old_end(stage, lambda client: client.zero(OLD_END - 9 * BLOCK, 9 * BLOCK), errno.ENOSPC)


# What a request of a client that came meanwhile may do where the volume becomes smaller


@case
def write_over_the_new_end_while_a_rollback_takes_away(stage: Stage) -> None:
    """A client connects while a rollback to a smaller snapshot runs, and writes the whole block in which that ends."""
    server = stage.serve(OLD_END)
    client = stage.connect()
    client.pwrite(b"S" * OLD_END, 0)
    server.must("snapshot", "v@small")
    server.must("resize", "v", "64K")
    stage.disconnect(client)
    sync = stage.stop_sync(2)
    rollback = Task(lambda: server.lacuna("rollback", "v@small", "--yes"))
    sync.wait_for()

    def connect_and_write() -> None:
        try:
            late = stage.connect()
            if late.get_size() >= 10 * BLOCK:
                late.pwrite(b"W" * BLOCK, 9 * BLOCK)
        except nbd.Error as error:
            refused(error, errno.ENOSPC)

    writing = Task(connect_and_write)
    settle()
    sync.release()
    was_done = rollback.result().returncode == 0
    writing.result()
    if was_done:
        expect(server.size("v") == OLD_END, f"after the rollback the volume has {server.size('v')} bytes")
        server.must("resize", "v", "64K")
        reader = stage.connect()
        expect_bytes("what the volume has grown by", reader.pread(64 * KIB - OLD_END, OLD_END), bytes(64 * KIB - OLD_END))
    stage.end_and_check()


@case
def connection_during_a_rollback(stage: Stage) -> None:
    """Without --force a rollback changes nothing under a client: one that connects meanwhile sees the old bytes or the new."""
    server = stage.serve(MIB)
    client = stage.connect()
    client.pwrite(b"1" * 8 * KIB, 0)
    server.must("snapshot", "v@one")
    client.pwrite(b"2" * 8 * KIB, 0)
    client.flush()
    expect(server.lacuna("rollback", "v@one", "--yes").returncode == 1, "a rollback under a client was not refused")
    stage.disconnect(client)
    sync = stage.stop_sync(2)
    rollback = Task(lambda: server.lacuna("rollback", "v@one", "--yes"))
    sync.wait_for()

    def connect_and_read() -> tuple[nbd.NBD, bytes]:
        late = stage.connect()
        return late, bytes(late.pread(4, 0))

    connecting = Task(connect_and_read)
    connecting.has_ended(0.5)
    sync.release()
    status = rollback.result().returncode
    late, first = connecting.result()
    second = bytes(late.pread(4, 0))
    expect(first in (b"1111", b"2222"), f"the client has read {first!r}")
    expect(first == second, f"the client has read {first!r}, and behind the rollback {second!r}")
    expect(status == 0 or first == b"2222", "the rollback was refused, and has changed the volume")
    stage.end_and_check()


@case
def growth_during_a_rollback(stage: Stage) -> None:
    """A resize that was larger when it was asked for must make nothing smaller."""
    server = stage.serve(64 * KIB)
    client = stage.connect()
    client.pwrite(b"S" * 64 * KIB, 0)
    server.must("snapshot", "v@large")
    stage.disconnect(client)
    server.must("resize", "v", "40K", "--yes")
    sync = stage.stop_sync()
    rollback = Task(lambda: server.lacuna("rollback", "v@large", "--yes", "--force"))
    sync.wait_for()
    growth = Task(lambda: server.lacuna("resize", "v", "48K"))
    settle()
    sync.release()
    done, grown = rollback.result(), growth.result()
    # Whoever came first may keep the other from being done, but not undo it.
    smallest = 64 * KIB if done.returncode == 0 else 48 * KIB if grown.returncode == 0 else 40 * KIB
    expect(server.size("v") >= smallest,
           f"after a rollback to 64K (status {done.returncode}) and a growth to 48K (status {grown.returncode}) the volume has "
           f"{server.size('v')} bytes")
    if done.returncode == 0:
        reader = stage.connect()
        expect_bytes("what the rollback has brought", reader.pread(64 * KIB, 0), b"S" * 64 * KIB)
    stage.end_and_check()


# Good data


@case
def old_blocks_of_a_long_read(stage: Stage) -> None:
    """A long read is not done when a checkpoint has made its blocks old, and the cache has lost their checksums: they are good
    all the same."""
    size, part = 320 * MIB, 512 * KIB
    server = stage.serve(size, "cache=256K", "journal=64K", f"limit={size + 24 * MIB}")
    client = stage.connect()
    for offset in range(0, size, 2 * MIB):
        client.pwrite(os.urandom(MIB) * 2, offset)
    with server.administration() as administration:
        # Every second part of the first 8 MiB becomes free: new data comes there, so that checkpoints write checksums of the
        # neighbourhood anew.
        for offset in range(part, 8 * MIB, 2 * part):
            client.trim(part, offset)
        administration.call("volume.set", name="v", quota=0)
        time.sleep(0.5)
        expected = bytes(client.pread(part, 0))
        reader = stage.connect()
        stopped = stage.delays.stop(READ, AFTER, size=part, seconds=60)
        reading = Task(lambda: bytes(reader.pread(part, 0)))
        stopped.wait_for()
        stopped["left"] = 0
        for offset in range(0, 8 * MIB, 2 * part):
            client.pwrite(os.urandom(part), offset)
        administration.call("volume.set", name="v", quota=0)
    # Other checksums push those of the reader out.
    for offset in range(8 * MIB, size, 128 * KIB):
        client.pread(BLOCK, offset)
    stopped.release()
    expect_bytes("the long read", reading.result(), expected)
    stage.end_and_check()
