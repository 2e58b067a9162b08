"""nbdkit's filters on top of a store: each does what it is for, and the disk below it stays what it should be."""

import errno
import os
import random
import re
import time

import nbd

from ..client import bytes_of, connected, contents, exercise, expect_refusal, extents
from ..commands import run
from ..lab import Lab
from ..scenario import HOST, scenario
from ..server import Server, Store

MEBIBYTE = 1 << 20

#: Not a multiple of any block.
ODD_SIZE = 8 * MEBIBYTE + 777


def stop(lab: Lab, server: Server, deaths: int = 0) -> None:
    """Ends a server. Fails where nbdkit has died more often than it was killed."""
    server.stop()
    lab.equal("times that nbdkit was started again", deaths, sum(map(starts_in, server.lines)))


def starts_in(line: str) -> int:
    """How many starts after a death a line of the log tells of: lines that repeat are summed up."""
    if "starting it again" not in line:
        return 0
    summary = re.search(r"the last of (\d+) more like it", line)
    return int(summary[1]) if summary else 1


def filled(lab: Lab, store: Store, size: int, seed: int) -> bytearray:
    """Writes to about half of a volume, and returns its bytes."""
    model = bytearray(size)
    server = lab.server(store)
    exercise(lab, server.uri(), model, seed, 100)
    stop(lab, server)
    return model


@scenario("filter-cow", places=(HOST,))
def filter_cow(lab: Lab) -> None:
    """Everything is writable, the store is not touched, and what was written is gone with nbdkit."""
    store = lab.store(size=str(ODD_SIZE))
    original = filled(lab, store, ODD_SIZE, 1)
    store.lacuna("snapshot", "disk@before")
    # Over a store that is read-only a plugin cannot zero, and neither can the filter of nbdkit 1.32.
    missing = frozenset({"zero", "fast zero"})
    for export in ("disk", "disk@before"):
        server = lab.server(store, "--filter=cow")
        model = bytearray(original)
        exercise(lab, server.uri(export), model, 2, missing=missing)
        lab.check("something was written", model != original)
        lab.check("the next client sees what the first one wrote", bytes_of(server, export) == model)
        counters = store.ask("stats")
        reached = [counters[kind]["count"] for kind in ("writes", "zeroes", "trims")]
        lab.equal("what has reached the store", [0, 0, 0], reached)
        server.kill()
        lab.check("it is gone with nbdkit", bytes_of(server, export) == original)
        stop(lab, server, deaths=1)
    lab.equal("what has changed in the volume", [], store.ask("diff", "disk@before", "disk")["extents"])
    store.lacuna("check", "--data")


PASSPHRASE = "correct horse"
LUKS_HEADER_SIZE = 2 * MEBIBYTE
PLAINTEXT = b"What a store must never see in plain text, it is said 64 times. " * 64


@scenario("filter-luks", places=(HOST,))
def filter_luks(lab: Lab) -> None:
    """A volume that is LUKS to the store and plain to clients: also after a kill, in snapshots, and for QEMU."""
    size = 4 * MEBIBYTE
    image = lab.folder / "luks.img"
    image.touch()
    os.truncate(image, size + LUKS_HEADER_SIZE)
    run("cryptsetup", "luksFormat", "--type=luks1", "--pbkdf-force-iterations=1000", "--batch-mode", "--key-file=-",
        str(image), stdin=PASSPHRASE.encode())
    store = lab.store(size=str(size + LUKS_HEADER_SIZE))
    store.lacuna("create", "--volume", "plain", "--size", "1M")
    server = lab.server(store)
    run("nbdcopy", str(image), server.uri())
    with connected(server.uri("plain")) as handle:
        handle.pwrite(PLAINTEXT[::-1], 0)
        handle.flush()
    stop(lab, server)

    server = lab.server(store, "--filter=luks", f"passphrase={PASSPHRASE}")
    model = bytearray(size)
    with connected(server.uri()) as handle:
        lab.equal("bytes of the plain disk", size, handle.get_size())
        lab.equal("the smallest request", 512, handle.get_block_size(nbd.SIZE_MINIMUM))
        handle.zero(size, 0)
        lab.equal("the extents, none of which may be told", [(0, size, 0)], extents(handle, size, 0))
    missing = frozenset({"trim", "fast zero"})
    exercise(lab, server.uri(), model, 3, 80, missing=missing, unit=512, longest=40_000)
    with connected(server.uri()) as handle:
        handle.pwrite(PLAINTEXT, MEBIBYTE)
    model[MEBIBYTE:MEBIBYTE + len(PLAINTEXT)] = PLAINTEXT
    server.kill()
    lab.check("what was acknowledged is there after a kill", bytes_of(server) == model)
    store.lacuna("snapshot", "disk@1")
    with connected(server.uri()) as handle:
        handle.pwrite(bytes(512), MEBIBYTE)
    lab.check("the snapshot has what was there", bytes_of(server, "disk@1") == model)
    exercise(lab, server.uri("disk@1+"), bytearray(model), 4, 20, missing=missing | {"multi-conn"}, unit=512,
             longest=40_000)
    lab.check("a throwaway copy is its own", bytes_of(server, "disk@1") == model)
    refused_by_luks(lab, server, "plain")
    lab.check("the volume is served afterwards", server.wait_until(server.answers, 20))
    server.stop()

    server = lab.server(store, "--filter=luks", "passphrase=wrong")
    refused_by_luks(lab, server, "")
    server.stop()

    server = lab.server(store)
    encrypted = bytes_of(server, "disk@1")
    reader = f"driver=luks,key-secret=key,file.driver=nbd,file.path={server.socket_path},file.export=disk@1"
    run("qemu-img", "convert", "--object", f"secret,id=key,data={PASSPHRASE}", "--image-opts", reader,
        "-O", "raw", str(lab.folder / "plain.img"))
    lab.check("QEMU decrypts the volume to the same bytes", (lab.folder / "plain.img").read_bytes() == model)
    stop(lab, server)
    lab.check("the volume is encrypted", PLAINTEXT[:16] not in encrypted)
    on_disk = store.path.read_bytes()
    lab.check("plain text that was written to the other volume is in the store", PLAINTEXT[::-1][:64] in on_disk)
    lab.check("plain text that was written through the filter is not", PLAINTEXT[:16] not in on_disk)
    store.lacuna("check", "--data")


def refused_by_luks(lab: Lab, server: Server, export: str) -> None:
    """A client is refused what the filter cannot open. nbdkit dies of it before 1.33.6, and is started again."""
    refused = run("nbdinfo", server.uri(export), check=False)
    lab.check("a client of what is not LUKS, or has another passphrase, fails", not refused.succeeded, refused.errors)


@scenario("filter-blocksize-policy", places=(HOST,))
def filter_blocksize_policy(lab: Lab) -> None:
    """The sizes that clients are told of, and what becomes of those who do not keep to them."""
    size = 8 * MEBIBYTE
    store = lab.store(size=str(size))
    model = filled(lab, store, size, 5)
    sizes = ("blocksize-minimum=4096", "blocksize-preferred=64K", "blocksize-maximum=1M")
    for policy in ("error", "allow"):
        server = lab.server(store, "--filter=blocksize-policy", *sizes, f"blocksize-error-policy={policy}")
        lab.equal("the sizes that are reported", (4096, 65536, MEBIBYTE), block_sizes(server))
        exercise(lab, server.uri(), model, 6, 100, unit=4096)
        with connected(server.uri()) as handle:
            handle.set_strict_mode(0)
            requests = {
                "a write of 512 bytes": lambda: handle.pwrite(model[4096:4608], 4096),
                "a write at 512": lambda: handle.pwrite(model[512:4608], 512),
                "a trim of no whole block": lambda: handle.trim(4096, 1),
                "a read of 2 MiB": lambda: handle.pread(2 * MEBIBYTE, 0),
            }
            for what, request in requests.items():
                if policy == "error":
                    expect_refusal(lab, what, request, (errno.EINVAL,))
                else:
                    request()
        # Clients that keep to the sizes.
        copies = [lab.folder / name for name in ("copied by nbdcopy", "copied by qemu-img")]
        run("nbdcopy", server.uri(), str(copies[0]))
        run("qemu-img", "convert", "-f", "raw", server.uri(), "-O", "raw", str(copies[1]))
        for copy in copies:
            lab.check(f"the bytes {copy.name}", copy.read_bytes() == model)
        model.reverse()
        copies[0].write_bytes(model)
        run("nbdcopy", str(copies[0]), server.uri())
        lab.check("what nbdcopy has written", bytes_of(server) == model)
        stop(lab, server)
    server = lab.server(store, "--filter=blocksize-policy")
    lab.equal("without parameters, the sizes that the plugin reports", (1, 4096, 2 * MEBIBYTE), block_sizes(server))
    stop(lab, server)
    store.lacuna("check", "--data")


def block_sizes(server: Server) -> tuple[int, ...]:
    with connected(server.uri()) as handle:
        return tuple(handle.get_block_size(kind) for kind in (nbd.SIZE_MINIMUM, nbd.SIZE_PREFERRED, nbd.SIZE_MAXIMUM))


@scenario("filter-stats", places=(HOST,))
def filter_stats(lab: Lab) -> None:
    """The file that nbdkit leaves has what was done, as the store's own statistics have."""
    store = lab.store(size="64M")
    path = lab.folder / "statistics"
    server = lab.server(store, "--filter=stats", f"statsfile={path}")
    with connected(server.uri()) as handle:
        for number in range(7):
            handle.pwrite(b"\1" * 8192, number * 8192)
        for number in range(5):
            handle.pread(4096, number * 65536)
        for number in range(3):
            handle.trim(MEBIBYTE, number * MEBIBYTE)
        for number in range(2):
            handle.zero(2 * MEBIBYTE, number * 4 * MEBIBYTE)
        handle.flush()
        all_of_it = extents(handle, 64 * MEBIBYTE, 0)
    lab.equal("holes after all was trimmed", [(0, 64 * MEBIBYTE, 3)], all_of_it)
    expected = {
        "read": (5, "20.00 KiB"), "write": (7, "56.00 KiB"), "trim": (3, "3.00 MiB"), "zero": (2, "4.00 MiB"),
        "flush": (1, "0 bytes"),
    }
    counters = store.ask("stats")
    for name, kind in zip(expected, ("reads", "writes", "trims", "zeroes", "flushes")):
        lab.equal(f"{kind}, as the store counts", expected[name][0], counters[kind]["count"])
    lab.check("there are no statistics while nbdkit runs", path.read_text(encoding="utf-8") == "")
    stop(lab, server)
    text = path.read_text(encoding="utf-8")
    lab.log.write(text)
    found = {name: (int(count), size) for name, count, size in
             re.findall(r"^(\w+): (\d+) ops, [0-9.]+ s, ([0-9.]+ \w+),", text, re.MULTILINE)}
    found.pop("total")
    lab.equal("the extents requests", 1, found.pop("extents")[0])
    lab.equal("what the file says", expected, found)


@scenario("filter-rate", places=(HOST,))
def filter_rate(lab: Lab) -> None:
    """Reads and writes are held to the rate, each by itself; zeroes and trims are free."""
    rate = 4 * MEBIBYTE  # Bytes a second; the filter wants bits.
    burst = 2 * rate
    total = burst + 2 * rate
    store = lab.store(size="1G")
    server = lab.server(store, "--filter=rate", f"rate={rate * 8}")
    data = random.Random(8).randbytes(total)
    with connected(server.uri()) as handle:
        least = 0.95 * (total - burst) / rate
        began = time.monotonic()
        for offset in range(0, total, 256 << 10):
            handle.pwrite(data[offset:offset + (256 << 10)], offset)
        lab.at_least("seconds for writing twice as much as the burst", least, time.monotonic() - began)
        began = time.monotonic()
        found = contents(handle, total)
        lab.at_least("seconds for reading it", least, time.monotonic() - began)
        lab.check("what was read", found == data)
        began = time.monotonic()
        for offset in range(0, 1 << 30, 64 * MEBIBYTE):
            handle.zero(64 * MEBIBYTE, offset)
            handle.trim(64 * MEBIBYTE, offset)
        # At the rate of its bytes, it would be 256 for each.
        lab.at_most("seconds for zeroing and trimming 1 GiB", 60, time.monotonic() - began)
    stop(lab, server)
    store.lacuna("check")


@scenario("filter-readahead", places=(HOST,))
def filter_readahead(lab: Lab) -> None:
    """Reading in order and at random, with writes right before the reader by somebody else."""
    store = lab.store(size=str(ODD_SIZE))
    model = filled(lab, store, ODD_SIZE, 9)
    # The cache filter passes on questions for extents, which denies what only it has, and trims, after which it still
    # has what was there.
    cached = ("--filter=noextents", "--filter=cache")
    for others, unused in (((), frozenset()), (cached, frozenset({"trim"}))):
        log = lab.folder / f"requests{len(others)}"
        server = lab.server(store, "--filter=readahead", *others, "--filter=log", f"logfile={log}")
        chance = random.Random(10)
        with connected(server.uri()) as reader, connected(server.uri()) as writer:
            offset, step = 0, 48 << 10
            while offset < ODD_SIZE:
                # What the reader comes to next, and has been read ahead already.
                there = min(offset + chance.randint(0, 4 * step), ODD_SIZE - 5000)
                model[there:there + 5000] = data = chance.randbytes(5000)
                writer.pwrite(data, there)
                writer.flush()
                count = min(step, ODD_SIZE - offset)
                if reader.pread(count, offset) != model[offset:offset + count]:
                    lab.check(f"the {count} bytes at {offset}", False)
                offset += count
        exercise(lab, server.uri(), model, 11, unused=unused)
        stop(lab, server)
        ahead = sum(" Cache " in line for line in log.read_text(encoding="utf-8").splitlines())
        if not others:
            lab.at_least("requests to read ahead that came to the plugin", 50, ahead)
    server = lab.server(store)
    lab.check("the volume in the end", bytes_of(server) == model)
    stop(lab, server)
    store.lacuna("check", "--data")
