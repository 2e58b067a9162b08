"""Requests through the Python bindings of libnbd, run by nbdsh.sh inside nbdsh.

`h` is connected to an empty volume of 64 MiB with base:allocation; `engine` and `socket_path` are set by the caller.
Each function below is one test; it fails by raising.
"""

import errno
import os
import random
import traceback

import nbd

MIB = 1 << 20
BLOCK = 4096
HAS_HOLES = engine != "bytes"
DATA, HOLE, ZERO = 0, nbd.STATE_HOLE, nbd.STATE_ZERO


def expect(found, expected):
    if found != expected:
        raise AssertionError(f"found {found!r}, expected {expected!r}")


def connect():
    client = nbd.NBD()
    client.add_meta_context("base:allocation")
    client.connect_unix(socket_path)
    return client


def states(client, length, offset, flags=0):
    """The answer of one block status request as a list of (length, state)."""
    found = []

    def extent(context, start, entries, error):
        expect(context, "base:allocation")
        expect(start, offset)
        found.extend(zip(entries[0::2], entries[1::2]))

    client.block_status(length, offset, extent, flags)
    return found


def expect_error(number, call, *arguments):
    try:
        call(*arguments)
    except nbd.Error as error:
        expect(error.errnum, number)
    else:
        raise AssertionError("the call succeeded")


def the_offer_is_complete():
    expect(h.get_size(), 64 * MIB)
    for offer in ["flush", "fua", "trim", "zero", "cache", "multi_conn", "df"]:
        expect((offer, getattr(h, "can_" + offer)()), (offer, True))
    expect(h.can_fast_zero(), True)
    expect(h.can_meta_context("base:allocation"), True)
    expect(h.is_read_only(), False)
    expect(h.is_rotational(), False)
    expect(h.get_block_size(nbd.SIZE_MINIMUM), 1)
    expect(h.get_block_size(nbd.SIZE_PREFERRED), BLOCK)
    expect(h.get_block_size(nbd.SIZE_MAXIMUM), 2 * MIB)
    assert h.get_protocol() == "newstyle-fixed"
    assert h.get_structured_replies_negotiated()


def list_and_info_agree():
    client = nbd.NBD()
    client.set_opt_mode(True)
    client.set_full_info(True)
    client.connect_unix(socket_path)
    names = []
    client.opt_list(lambda name, description: names.append((name, description)))
    expect(len(names), 1)
    name, description = names[0]
    assert name and description
    for asked in ["", name]:
        client.set_export_name(asked)
        client.opt_info()
        expect(client.get_size(), 64 * MIB)
        expect(client.get_canonical_export_name(), name)
        expect(client.get_export_description(), description)
    client.set_export_name("nosuch")
    expect_error(errno.ENOENT, client.opt_info)
    expect_error(errno.ENOENT, client.opt_go)
    client.opt_abort()


def bytes_come_back():
    for offset, length in [(0, 1), (511, 2), (4095, 2), (1, 70_001), (64 * MIB - 3, 3), (7 * MIB + 13, 2 * MIB)]:
        pattern = random.Random(offset).randbytes(length)
        h.pwrite(pattern, offset)
        expect(h.pread(length, offset) == pattern, True)
    expect(h.pread(2, 5), h.pread(4, 4)[1:3])
    expect_error(errno.EINVAL, lambda: h.pread(2 * MIB + 1, 0))
    expect_error(errno.EINVAL, lambda: h.pwrite(bytes(2 * MIB + 1), 0))


def zero_and_trim_leave_what_they_promise():
    base = 20 * MIB
    h.pwrite(b"\xaa" * (64 * BLOCK), base)
    h.zero(8 * BLOCK, base + 8 * BLOCK)
    h.zero(8 * BLOCK, base + 24 * BLOCK, nbd.CMD_FLAG_NO_HOLE)
    h.trim(8 * BLOCK, base + 40 * BLOCK)
    for block in range(64):
        is_zero = 8 <= block < 16 or 24 <= block < 32 or 40 <= block < 48 and HAS_HOLES
        if not is_zero and not HAS_HOLES and 40 <= block < 48:
            continue
        expect((block, h.pread(BLOCK, base + block * BLOCK)), (block, (b"\0" if is_zero else b"\xaa") * BLOCK))
    if not HAS_HOLES:
        return
    kept = ZERO if engine in ("extent", "disk") else DATA
    runs = [(8, DATA), (8, HOLE | ZERO), (8, DATA), (8, kept), (8, DATA), (8, HOLE | ZERO), (16, DATA)]
    merged = []
    for count, state in runs:
        if merged and merged[-1][1] == state:
            merged[-1] = (merged[-1][0] + count * BLOCK, state)
        else:
            merged.append((count * BLOCK, state))
    expect(states(h, 64 * BLOCK, base), merged)


def block_status_is_clipped():
    for length, offset in [(1, 0), (513, 30 * MIB + 7), (MIB, 40 * MIB), (64 * MIB, 0), (1, 64 * MIB - 1)]:
        for flags in [0, nbd.CMD_FLAG_REQ_ONE]:
            answer = states(h, length, offset, flags)
            total = sum(entry[0] for entry in answer)
            assert 1 <= total <= length, (length, offset, answer)
            if flags:
                expect(len(answer), 1)


def errors_have_their_numbers():
    client = nbd.NBD()
    client.set_strict_mode(0)
    client.connect_unix(socket_path)
    end = 64 * MIB
    expect_error(errno.EINVAL, client.pread, 2, end - 1)
    expect_error(errno.ENOSPC, client.pwrite, b"xx", end - 1)
    expect_error(errno.ENOSPC, client.zero, 2, end - 1)
    expect_error(errno.EINVAL, client.trim, 2, end - 1)
    expect_error(errno.EINVAL, client.cache, 2, end - 1)
    expect_error(errno.EINVAL, client.pread, 1, 2**64 - 1)
    expect(len(client.pread(1, end - 1)), 1)
    client.shutdown()


def fua_flush_and_cache_succeed():
    h.pwrite(b"durable", 50 * MIB, nbd.CMD_FLAG_FUA)
    h.zero(3, 50 * MIB + 1, nbd.CMD_FLAG_FUA)
    h.trim(BLOCK, 51 * MIB, nbd.CMD_FLAG_FUA)
    h.flush()
    h.cache(64 * MIB, 0)
    expect(h.pread(7, 50 * MIB), b"d\0\0\0ble")


def completions_are_called_once_each():
    clients = [connect() for _ in range(4)]
    finished = []

    def completed(index, error):
        expect(error.value, 0)
        finished.append(index)
        return 1

    buffers = []
    for index in range(256):
        buffer = nbd.Buffer.from_bytearray(bytearray([index]) * 3001)
        buffers.append(buffer)
        clients[index % 4].aio_pwrite(
            buffer, 10 * MIB + index * 3001, lambda error, index=index: completed(index, error))
    for client in clients:
        for _ in range(10_000):
            if client.aio_in_flight() == 0:
                break
            client.poll(1000)
    expect(sorted(finished), list(range(256)))
    found = h.pread(256 * 3001, 10 * MIB)
    expect(found == b"".join(bytes([index]) * 3001 for index in range(256)), True)
    for client in clients:
        client.shutdown()


def random_requests_match_a_bytearray():
    seed = int(os.environ.get("LACUNA_SEED", random.randrange(1 << 32)))
    print(f"# LACUNA_SEED={seed}")
    source = random.Random(seed)
    base, size = 3 * MIB + 77, 2 * MIB
    h.zero(size, base)
    model = bytearray(size)
    clients = [connect() for _ in range(3)]
    for step in range(600):
        client = source.choice(clients)
        length = source.choice([1, 100, 4096, 8192, 50_000, 200_000])
        length = source.randrange(1, length + 1)
        start = source.randrange(size - length + 1)
        what = source.randrange(10)
        if what < 4:
            data = source.randbytes(length)
            client.pwrite(data, base + start, source.choice([0, nbd.CMD_FLAG_FUA]))
            model[start : start + length] = data
        elif what < 6:
            client.zero(length, base + start, source.choice([0, nbd.CMD_FLAG_NO_HOLE]))
            model[start : start + length] = bytes(length)
        elif what < 7:
            client.trim(length, base + start)
            found = client.pread(length, base + start)
            for new, old in zip(found, model[start : start + length]):
                assert new in (0, old), f"step {step}: trimming changed a byte to another than zero"
            model[start : start + length] = found
        else:
            found = client.pread(length, base + start)
            assert found == model[start : start + length], f"step {step}: read {length} at {start}"
    expect(h.pread(size, base) == model, True)
    for client in clients:
        client.shutdown()


for test in [
    the_offer_is_complete,
    list_and_info_agree,
    bytes_come_back,
    zero_and_trim_leave_what_they_promise,
    block_status_is_clipped,
    errors_have_their_numbers,
    fua_flush_and_cache_succeed,
    completions_are_called_once_each,
    random_requests_match_a_bytearray,
]:
    name = f"nbdsh {engine}: {test.__name__.replace('_', ' ')}"
    try:
        test()
        print("ok", name)
    except Exception:
        print("not ok", name)
        print("\n".join("# " + line for line in traceback.format_exc().splitlines()))
h.shutdown()
