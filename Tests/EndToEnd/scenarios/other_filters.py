"""The filters of nbdkit that change little, those that choose what a client gets, and snapshots through all of them."""

import errno
import os
import threading
from dataclasses import dataclass

from ..client import all_extents, bytes_of, connected, contents, exercise, expect_refusal, exports
from ..commands import run
from ..lab import Lab
from ..scenario import HOST, scenario
from ..server import Server, Store
from .filters import MEBIBYTE, ODD_SIZE, filled, stop


@dataclass(frozen=True)
class Passing:
    """A filter that lets a disk be what it is, more or less."""

    arguments: tuple[str, ...]
    #: What clients are no longer offered.
    missing: frozenset[str] = frozenset()
    #: Requests, as the store counts them, that never come to it; all others must.
    never: frozenset[str] = frozenset()


NO_ZEROES = frozenset({"zero", "fast zero"})
PASSING = (
    Passing(("--filter=nozero",), missing=NO_ZEROES, never=frozenset({"zeroes"})),
    Passing(("--filter=nozero", "zeromode=emulate"), never=frozenset({"zeroes"})),
    Passing(("--filter=nozero", "zeromode=notrim")),
    Passing(("--filter=nozero", "zeromode=plugin", "fastzeromode=none"), missing=frozenset({"fast zero"})),
    Passing(("--filter=noextents",)),
    Passing(("--filter=nocache",), missing=frozenset({"cache"})),
    Passing(("--filter=fua",), missing=frozenset({"fua"})),
    Passing(("--filter=fua", "fuamode=emulate")),
    Passing(("--filter=fua", "fuamode=force"), never=frozenset({"flushes"})),
    Passing(("--filter=fua", "fuamode=discard"), never=frozenset({"flushes"})),
    Passing(("--filter=multi-conn", "multi-conn-mode=emulate")),
    Passing(("--filter=multi-conn", "multi-conn-mode=disable"), missing=frozenset({"multi-conn"})),
    Passing(("--filter=noparallel",)),
    Passing(("--filter=blocksize", "maxdata=64K", "maxlen=128K")),
    Passing(("--filter=scan",)),
    Passing(("--filter=retry",)),
    Passing(("--filter=retry-request",)),
    Passing(("--filter=limit", "limit=2")),
    Passing(("--filter=delay", "delay-read=1ms", "delay-write=1ms")),
    Passing(("--filter=readahead", "--filter=blocksize", "--filter=multi-conn", "--filter=retry", "--filter=fua",
             "fuamode=pass")),
)


@scenario("filters-passing", places=(HOST,))
def filters_passing(lab: Lab) -> None:
    """Filters that hardly change a disk, one after the other: each takes over what the one before has left."""
    store = lab.store(size=str(ODD_SIZE))
    model = filled(lab, store, ODD_SIZE, 20)
    for number, passing in enumerate(PASSING):
        server = lab.server(store, *passing.arguments)
        lab.check(f"what {' '.join(passing.arguments)} has found", bytes_of(server) == model)
        exercise(lab, server.uri(), model, 21 + number, 100, missing=passing.missing)
        counters = store.ask("stats")
        unseen = {kind for kind in ("reads", "writes", "zeroes", "trims", "flushes") if not counters[kind]["count"]}
        lab.equal("requests that never came to the store", passing.never, unseen)
        # Zeroes may fail where they would not be fast.
        failed = sum(counters[kind]["errors"] for kind in ("reads", "writes", "trims", "flushes"))
        lab.equal("requests that failed", 0, failed)
        stop(lab, server)
    server = lab.server(store)
    lab.check("the volume in the end", bytes_of(server) == model)
    stop(lab, server)
    store.lacuna("check", "--data")


PARTITIONS = {
    "dos": "label: dos\nstart=2048, size=4096, type=83\nstart=6144, size=6144, type=82\n",
    "gpt": "label: gpt\nstart=2048, size=4096\nstart=6144, size=6144\n",
}


@scenario("filters-of-a-part", places=(HOST,))
def filters_of_a_part(lab: Lab) -> None:
    """Clients get a part of the disk, and the rest of it stays what it is."""
    size = 8 * MEBIBYTE
    store = lab.store(size=str(size))
    model = filled(lab, store, size, 50)
    parts: list[tuple[tuple[str, ...], int, int]] = [
        (("--filter=offset", "offset=1234567", "range=3M"), 1234567, 3 * MEBIBYTE),
        (("--filter=truncate", "truncate=5000001"), 0, 5000001),
        (("--filter=blocksize", "minblock=64K", "maxdata=128K"), 0, size),
    ]
    for part in parts:
        use_part(lab, store, model, *part)
    for label, table in PARTITIONS.items():
        server = lab.server(store)
        image = lab.folder / f"{label}.img"
        image.write_bytes(bytes_of(server))
        run("sfdisk", "--quiet", "--no-reread", "--wipe=never", str(image), stdin=table.encode())
        run("nbdcopy", str(image), server.uri())
        stop(lab, server)
        model[:] = image.read_bytes()
        use_part(lab, store, model, ("--filter=partition", "partition=1"), MEBIBYTE, 2 * MEBIBYTE)
        use_part(lab, store, model, ("--filter=partition", "partition=2"), 3 * MEBIBYTE, 3 * MEBIBYTE)

    server = lab.server(store, "--filter=truncate", "truncate=9M")
    with connected(server.uri()) as handle:
        lab.check("a disk that is made larger", contents(handle) == model + bytes(MEBIBYTE))
        lab.equal("its last extent", (size, MEBIBYTE, 3), all_extents(handle)[-1])
        handle.zero(MEBIBYTE, size)
        expect_refusal(lab, "a write beyond the volume", lambda: handle.pwrite(b"1", size), (errno.EIO, errno.ENOSPC))
    stop(lab, server)
    server = lab.server(store)
    lab.check("the whole volume in the end", bytes_of(server) == model)
    stop(lab, server)
    store.lacuna("check", "--data")


def use_part(lab: Lab, store: Store, model: bytearray, arguments: tuple[str, ...], offset: int, length: int) -> None:
    """Uses the part of the disk that a filter shows."""
    server = lab.server(store, *arguments)
    part = model[offset:offset + length]
    lab.check(f"what {' '.join(arguments)} shows", bytes_of(server) == part)
    exercise(lab, server.uri(), part, offset, 60)
    stop(lab, server)
    model[offset:offset + length] = part


@scenario("filters-of-clients", places=(HOST,))
def filters_of_clients(lab: Lab) -> None:
    """Filters that choose who gets what: export names, users, the number of clients, ranges that may not be written."""
    store = lab.store(size=str(ODD_SIZE))
    store.lacuna("create", "--volume", "other", "--size", "1M")
    model = filled(lab, store, ODD_SIZE, 60)
    store.lacuna("snapshot", "disk@1")

    # With cow, all clients have to be on one export: what it has written belongs to a place, whatever the export.
    server = lab.server(store, "--filter=exportname", "--filter=cow", "default-export=disk@1", "exportname=disk@1",
                        "exportname=", "exportname-strict=true", "exportname-list=explicit")
    lab.equal("the exports that are listed", ["", "disk@1"], sorted(exports(server.uri())))
    exercise(lab, server.uri(), bytearray(model), 61, 50, missing=NO_ZEROES)
    for name in ("disk", "other", "disk@1+"):
        lab.check(f"{name} is refused", not run("nbdinfo", server.uri(name), check=False).succeeded)
    lab.check("the allowed name is not", run("nbdinfo", "--size", server.uri("disk@1")).output == f"{ODD_SIZE}\n")
    stop(lab, server)

    server = lab.server(store, "--filter=ip", f"allow=uid:{os.getuid()}", "deny=all")
    lab.check("a user who is allowed", bytes_of(server) == model)
    stop(lab, server)
    server = lab.server(store, "--filter=ip", f"deny=uid:{os.getuid()}")
    lab.check("a user who is denied", not run("nbdinfo", server.uri(), check=False).succeeded)
    lab.equal("clients of the volume", 0, store.ask("info", "disk")["clients"])
    stop(lab, server)

    server = lab.server(store, "--filter=limit", "limit=1")
    with connected(server.uri()):
        lab.check("a second client is refused", not run("nbdinfo", server.uri(), check=False).succeeded)
    lab.check("but not when the first one has gone", server.wait_until(server.answers, 10))
    stop(lab, server)

    server = lab.server(store, "--filter=protect", "protect=4096-12287")
    with connected(server.uri()) as handle:
        handle.pwrite(model[4096:8192], 4096)
        other = bytes(byte ^ 1 for byte in model[8190:8200])
        expect_refusal(lab, "a change of what is protected", lambda: handle.pwrite(other, 8190), (errno.EPERM,))
        handle.pwrite(b"free", 12288)
    model[12288:12292] = b"free"
    lab.check("only what is free has changed", bytes_of(server) == model)
    stop(lab, server)
    lab.equal("what differs from the snapshot", [(12288, 4096)],
              [(extent["offset"], extent["length"]) for extent in store.ask("diff", "disk@1", "disk")["extents"]])


@scenario("filter-retry", places=(HOST,))
def filter_retry(lab: Lab) -> None:
    """Requests that fail are made again on a new opening of the volume, which is where a throwaway copy ends."""
    store = lab.store(size="8M")
    model = filled(lab, store, 8 * MEBIBYTE, 70)
    fails = lab.folder / "fails"
    server = lab.server(store, "--filter=retry", "retry-delay=1", "--filter=error", "error-pwrite-rate=100%",
                        f"error-pwrite-file={fails}")
    for export, keeps in (("disk", True), ("disk+", False)):
        with connected(server.uri(export)) as handle:
            before = f"written to {export} before a failure".encode()
            old = bytes(handle.pread(len(before), 0))
            handle.pwrite(before, 0)
            fails.touch()
            # The first request must meet it, however busy the machine is; the filter tries again for 31 seconds.
            threading.Timer(2, fails.unlink).start()
            handle.pwrite(b"after it", 4096)
            found = [bytes(handle.pread(len(before), 0)), bytes(handle.pread(8, 4096))]
            lab.equal(f"what {export} has", [before if keeps else old, b"after it"], found)
            if keeps:
                model[:len(before)], model[4096:4104] = found
            counts = [store.ask("info")["throwaways"], store.ask("stats")["clients"]]
            lab.equal("throwaways and clients meanwhile", [0 if keeps else 1, 1], counts)
        lab.check("the volume", bytes_of(server, "disk") == model)
    lab.check("nothing stays open", server.wait_until(lambda: store.ask("stats")["clients"] == 0, 10))
    lab.equal("throwaways in the end", 0, store.ask("info")["throwaways"])
    stop(lab, server)
    store.lacuna("check", "--data")


@scenario("filter-cache", places=(HOST,))
def filter_cache(lab: Lab) -> None:
    """What was flushed through the cache survives a kill; with writethrough, all that was written does."""
    store = lab.store(size="8M")
    model = filled(lab, store, 8 * MEBIBYTE, 80)
    for mode in ("writeback", "writethrough"):
        # Without noextents, what only the cache has would be called a hole.
        server = lab.server(store, "--filter=noextents", "--filter=cache", f"cache={mode}")
        exercise(lab, server.uri(), model, 81, unused=frozenset({"trim"}))
        with connected(server.uri()) as handle:
            handle.pwrite(mode.encode(), MEBIBYTE)
            handle.flush()
            handle.pwrite(b"not flushed", 2 * MEBIBYTE)
        model[MEBIBYTE:MEBIBYTE + len(mode)] = mode.encode()
        server.kill()
        with connected(server.uri()) as handle:
            found = contents(handle)
        if mode == "writethrough":
            model[2 * MEBIBYTE:2 * MEBIBYTE + 11] = b"not flushed"
        lab.check("the volume after a kill", found == model)
        stop(lab, server, deaths=1)
    store.lacuna("check", "--data")


@scenario("filters-that-exit", places=(HOST,))
def filters_that_exit(lab: Lab) -> None:
    """nbdkit ends by itself when its last client goes, or when it is told to: nothing is lost, and it stays ended."""
    store = lab.store(size="8M")
    model = filled(lab, store, 8 * MEBIBYTE, 90)
    told = lab.folder / "end"
    when_told = ("--filter=exitwhen", f"exit-when-file-created={told}", "exit-when-poll=1")
    for arguments in (("--filter=exitlast",), when_told):
        told.unlink(missing_ok=True)
        server = lab.server(store, *arguments)
        with connected(server.uri()) as handle:
            told.touch()
            handle.pwrite(arguments[0].encode(), MEBIBYTE)
        model[MEBIBYTE:MEBIBYTE + len(arguments[0])] = arguments[0].encode()
        lab.equal("the status that it ends with", 0, server.process.wait(20))
        again = lab.server(store)
        lab.check("what was written last is there", bytes_of(again) == model)
        stop(lab, again)
    store.lacuna("check", "--data")


CHAINS = (
    ("--filter=log", "logfile=/dev/null"),
    ("--filter=readahead",),
    ("--filter=retry",),
    ("--filter=noparallel",),
    ("--filter=blocksize", "maxdata=64K"),
    ("--filter=multi-conn", "multi-conn-mode=plugin"),
    ("--filter=exportname", "default-export=disk@1"),
    ("--filter=exportname", "--filter=readahead", "--filter=retry", "--filter=nocache"),
)


@scenario("filters-and-snapshots", places=(HOST,))
def filters_and_snapshots(lab: Lab) -> None:
    """Snapshots, their differences and throwaway copies are what they are, also through filters."""
    store = lab.store(size=str(ODD_SIZE))
    first = filled(lab, store, ODD_SIZE, 100)
    store.lacuna("snapshot", "disk@1")
    second = bytearray(first)
    server = lab.server(store)
    exercise(lab, server.uri(), second, 101, 40)
    store.lacuna("snapshot", "disk@2")
    with connected(server.uri("disk@1..2")) as handle:
        differences = all_extents(handle)
    lab.at_least("extents of the difference", 10, len(differences))
    stop(lab, server)
    for number, chain in enumerate(CHAINS):
        lab.log.write(f"[{' '.join(chain)}]\n")
        server = lab.server(store, *chain)
        missing = frozenset({"cache"} if "--filter=nocache" in chain else ())
        look_at_snapshots(lab, server, {"disk@1": first, "disk@2": second, "disk": second})
        with connected(server.uri("disk@1..2")) as handle:
            lab.equal("the difference", differences, all_extents(handle))
        if "default-export=disk@1" in chain:
            lab.check("the default export is the snapshot", bytes_of(server) == first)
        exercise(lab, server.uri("disk@1+"), bytearray(first), number, 30, missing=missing | {"multi-conn"})
        shared = bytearray(second)
        with connected(server.uri("disk+shared")) as keeps_it:
            exercise(lab, server.uri("disk+shared"), shared, number, 30, missing=missing)
            lab.check("all who use its name share a throwaway", contents(keeps_it) == shared)
        look_at_snapshots(lab, server, {"disk@1": first, "disk": second})
        lab.check("throwaways go", server.wait_until(lambda: store.ask("info")["throwaways"] == 0, 10))
        stop(lab, server)
    store.lacuna("check", "--data")


def look_at_snapshots(lab: Lab, server: Server, models: dict[str, bytearray]) -> None:
    """Compares exports with what they should hold. Snapshots are read-only."""
    for export, model in models.items():
        with connected(server.uri(export)) as handle:
            lab.check(f"the bytes of {export}", contents(handle) == model)
            lab.equal(f"whether {export} is read-only", "@" in export, handle.is_read_only())
            if "@" in export:
                handle.set_strict_mode(0)
                expect_refusal(lab, "a write", lambda: handle.pwrite(b"no", 0))
