"""Clients that speak NBD and nothing else: libnbd in this process, and random requests compared with a model."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import nbd

from .commands import Failed
from .lab import Lab
from .server import Server

#: What a volume lets a client do, block status aside, which nbdkit always offers.
ABILITIES = frozenset({"write", "flush", "fua", "trim", "zero", "fast zero", "cache", "multi-conn"})

#: How a server refuses a request that it does not offer.
REFUSALS = (errno.EINVAL, errno.EPERM, errno.EROFS)


@contextmanager
def connected(uri: str) -> Iterator[nbd.NBD]:
    """A connection for as long as a block of code runs."""
    handle = nbd.NBD()
    handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.set_uri_allow_local_file(True)
    handle.connect_uri(uri)
    yield handle
    handle.shutdown()


def abilities(handle: nbd.NBD) -> frozenset[str]:
    """What the server offers."""
    offered = {
        "write": not handle.is_read_only(), "flush": handle.can_flush(), "fua": handle.can_fua(),
        "trim": handle.can_trim(), "zero": handle.can_zero(), "fast zero": handle.can_fast_zero(),
        "cache": handle.can_cache(), "multi-conn": handle.can_multi_conn(),
    }
    return frozenset(ability for ability, is_there in offered.items() if is_there)


def contents(handle: nbd.NBD, count: int | None = None, offset: int = 0) -> bytes:
    """The bytes of an export, from an offset to its end by default."""
    end = handle.get_size() if count is None else offset + count
    parts = [handle.pread(min(1 << 20, end - start), start) for start in range(offset, end, 1 << 20)]
    return bytes(b"".join(parts))


def bytes_of(server: Server, export: str = "") -> bytes:
    """The bytes of an export, over a connection of its own."""
    with connected(server.uri(export)) as handle:
        return contents(handle)


def exports(uri: str) -> list[str]:
    """The names that a server lists."""
    handle = nbd.NBD()
    handle.set_uri_allow_local_file(True)
    handle.set_opt_mode(True)
    handle.connect_uri(uri)
    names: list[str] = []

    def add(name: str, _description: str) -> int:
        names.append(name)
        return 0

    handle.opt_list(add)
    handle.opt_abort()
    return names


def extents(handle: nbd.NBD, count: int, offset: int) -> list[tuple[int, int, int]]:
    """The extents that one answer has: offset, length, and flags of base:allocation."""
    found: list[tuple[int, int, int]] = []

    def add(_context: str, start: int, entries: list[int], _error: object) -> None:
        for length, flags in zip(entries[::2], entries[1::2]):
            found.append((start, length, flags))
            start += length

    handle.block_status(count, offset, add)
    return found


def all_extents(handle: nbd.NBD) -> list[tuple[int, int, int]]:
    """The extents of a whole export; neighbours of one kind are one."""
    size = handle.get_size()
    found: list[tuple[int, int, int]] = []
    end = 0
    while end < size:
        for start, length, flags in extents(handle, min(size - end, 1 << 30), end):
            if found and found[-1][2] == flags:
                start, length = found[-1][0], found.pop()[1] + length
            found.append((start, length, flags))
        end = found[-1][0] + found[-1][1]
    return found


def expect_refusal(lab: Lab, what: str, request: Callable[[], object], errors: tuple[int, ...] = REFUSALS) -> None:
    """Fails unless a request is answered with one of these errors."""
    try:
        request()
    except nbd.Error as error:
        names = [errno.errorcode[number] for number in errors]
        lab.check(f"{what} is refused with one of {names}", error.errnum in errors, error)
        return
    raise Failed(f"{what} was not refused")


def refusals(lab: Lab, handle: nbd.NBD) -> None:
    """What a server does not offer it refuses, and goes on.

    Fast zeroes aside: nbdkit 1.32.5 dies of them where it did not offer them.
    """
    offered = abilities(handle)
    handle.set_strict_mode(0)
    requests: dict[str, Callable[[], object]] = {
        "write": lambda: handle.pwrite(b"\1" * 4096, 0), "trim": lambda: handle.trim(4096, 0),
        "zero": lambda: handle.zero(4096, 0), "cache": lambda: handle.cache(4096, 0), "flush": handle.flush,
    }
    if "write" in offered:
        requests["fua"] = lambda: handle.pwrite(b"\1" * 4096, 0, nbd.CMD_FLAG_FUA)
    for ability, request in requests.items():
        if ability not in offered:
            expect_refusal(lab, f"{ability}, which is not offered,", request)
    handle.set_strict_mode(nbd.STRICT_MASK)
    lab.equal("bytes that can be read after it", 4096, len(handle.pread(4096, 0)))


class Exercise:
    """Random requests over connections to one export, each answer compared with a model of its bytes.

    A connection is flushed before another one is used, which is what multi-conn promises to be enough. Requests start
    and end at multiples of `unit`, and have at most `longest` bytes.
    """

    def __init__(self, handles: list[nbd.NBD], model: bytearray, seed: int, *, unit: int = 1, longest: int = 200_000,
                 unused: frozenset[str] = frozenset()):
        self.handles = handles
        self.handle = handles[0]
        self.model = model
        self.chance = random.Random(seed)
        self.unit = unit
        self.longest = longest
        self.offered = abilities(self.handle) - unused

    def run(self, count: int) -> None:
        """Makes requests that the server offers, flushes, and compares all bytes in the end."""
        actions: dict[str, Callable[[], None]] = {
            "write": self.write, "zero": self.zero, "trim": self.trim, "flush": self.flush, "cache": self.cache,
        }
        possible = [self.read, self.read, self.look_at_extents]
        possible += [action for ability, action in actions.items() if ability in self.offered]
        possible += [self.write] * ("write" in self.offered)
        for _ in range(count):
            chosen = self.chance.choice(self.handles)
            if chosen is not self.handle and "flush" in self.offered:
                self.handle.flush()
            self.handle = chosen
            self.chance.choice(possible)()
        if "flush" in self.offered:
            self.handle.flush()
        self.compare(0, contents(self.handle))

    def place(self) -> tuple[int, int]:
        """A length and an offset."""
        units = len(self.model) // self.unit
        length = min(units, self.chance.choice((1, self.chance.randint(1, 20), 1 + self.longest // self.unit // 2)))
        length = min(length * self.chance.choice((1, 1, 2)), units, self.longest // self.unit)
        offset = self.chance.randint(0, units - length)
        if self.chance.random() < 0.5:  # Blocks of the store, whole.
            offset = min(offset * self.unit // 4096 * 4096 // self.unit, units - length)
        return length * self.unit, offset * self.unit

    def durably(self) -> int:
        return nbd.CMD_FLAG_FUA if "fua" in self.offered and self.chance.random() < 0.2 else 0

    def read(self) -> None:
        count, offset = self.place()
        self.compare(offset, self.handle.pread(count, offset))

    def write(self) -> None:
        count, offset = self.place()
        data = bytes(count) if self.chance.random() < 0.1 else self.chance.randbytes(count)
        self.handle.pwrite(data, offset, self.durably())
        self.model[offset:offset + count] = data

    def zero(self) -> None:
        count, offset = self.place()
        flags = self.durably() | self.chance.choice((0, nbd.CMD_FLAG_NO_HOLE))
        if "fast zero" in self.offered and self.chance.random() < 0.3:
            flags |= nbd.CMD_FLAG_FAST_ZERO
        try:
            self.handle.zero(count, offset, flags)
        except nbd.Error as error:
            if error.errnum == errno.ENOTSUP and flags & nbd.CMD_FLAG_FAST_ZERO:
                return  # It would not have been fast, and nothing was done.
            raise
        self.model[offset:offset + count] = bytes(count)

    def trim(self) -> None:
        count, offset = self.place()
        self.handle.trim(count, offset, self.durably())
        found = self.handle.pread(count, offset)
        for start in range(0, count, 512):
            part, before = found[start:start + 512], self.model[offset + start:offset + min(start + 512, count)]
            if part != before and any(byte not in (0, old) for byte, old in zip(part, before)):
                raise Failed(f"after a trim, the 512 bytes at {offset + start} are neither zeroes nor what they were")
        self.model[offset:offset + count] = found

    def flush(self) -> None:
        self.handle.flush()

    def cache(self) -> None:
        self.handle.cache(*self.place())

    def look_at_extents(self) -> None:
        count, offset = self.place()
        for start, length, flags in extents(self.handle, count, offset):
            if flags & nbd.STATE_HOLE and not flags & nbd.STATE_ZERO:
                raise Failed(f"the hole at {start} does not read as zeroes, says the server")
            end = min(start + length, len(self.model))
            if flags & nbd.STATE_ZERO and any(self.model[start:end]):
                raise Failed(f"the server says that {length} bytes at {start} are zeroes")

    def compare(self, offset: int, found: bytes | bytearray) -> None:
        expected = self.model[offset:offset + len(found)]
        if found != expected:
            index = next(index for index, pair in enumerate(zip(found, expected)) if pair[0] != pair[1])
            raise Failed(f"byte {offset + index} is {found[index]}, not {expected[index]} ({len(found)} from {offset})")


def exercise(lab: Lab, uri: str, model: bytearray, seed: int, count: int = 200, *,
             missing: frozenset[str] = frozenset(), unused: frozenset[str] = frozenset(), unit: int = 1,
             longest: int = 200_000) -> None:
    """Uses an export for a round of random requests, after which `model` has its bytes.

    It must offer all but what is `missing`, which it must refuse; what is `unused` is offered, and not asked for.
    Where it offers multi-conn, two connections are used.
    """
    with connected(uri) as first:
        lab.equal("what is offered", sorted(ABILITIES - missing), sorted(abilities(first)))
        refusals(lab, first)
        if "multi-conn" in missing:
            Exercise([first], model, seed, unit=unit, longest=longest, unused=unused).run(count)
            return
        with connected(uri) as second:
            Exercise([first, second], model, seed, unit=unit, longest=longest, unused=unused).run(count)
