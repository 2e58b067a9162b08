"""Measures snapshots of a served store; see bench-snapshots, which runs this."""

import argparse
import json
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import time

BLOCK = 4096


class Control:
    """A connection to the control socket (docs/control.md)."""

    def __init__(self, store):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(store + ".sock")
        self.lines = self.socket.makefile("rw")

    def call(self, method, **parameters):
        self.lines.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}) + "\n")
        self.lines.flush()
        answer = json.loads(self.lines.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def timed(self, method, **parameters):
        """The milliseconds that a call took."""
        start = time.perf_counter()
        self.call(method, **parameters)
        return (time.perf_counter() - start) * 1e3

    def finish_deletions(self):
        while self.call("store.deletions")["volumes"]:
            time.sleep(0.01)


class Client:
    """An NBD connection that writes, one request at a time."""

    def __init__(self, path, export):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.receive(18)
        self.socket.sendall(struct.pack(">I", 3))
        name = export.encode()
        # NBD_OPT_EXPORT_NAME, without zeroes behind the answer.
        self.socket.sendall(b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name)
        self.receive(10)

    def receive(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise RuntimeError("the server hung up")
            data += piece
        return data

    def write(self, offset, data):
        """The microseconds that a write took."""
        request = struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, offset, len(data)) + data
        start = time.perf_counter()
        self.socket.sendall(request)
        _, error, _ = struct.unpack(">IIQ", self.receive(16))
        if error:
            raise RuntimeError(f"a write failed: {error}")
        return (time.perf_counter() - start) * 1e6


class Server:
    """nbdkit, on a new store."""

    def __init__(self, plugin, directory, size):
        self.store = os.path.join(directory, "s.lacuna")
        self.path = os.path.join(directory, "nbd.sock")
        self.process = subprocess.Popen(
            ["nbdkit", "-f", "--exit-with-parent", "-t", "16", "-U", self.path, plugin, self.store, f"size={size}"])
        deadline = time.monotonic() + 20
        while not (os.path.exists(self.path) and os.path.exists(self.store + ".sock")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("nbdkit did not start")
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def fio(self, *options, export=""):
        uri = f"nbd+unix:///{export}?socket={self.path}"
        return subprocess.Popen(
            ["fio", "--name=load", "--ioengine=nbd", f"--uri={uri}", "--bs=4k", "--minimal", *options],
            stdout=subprocess.DEVNULL)

    def fill(self, *options, export=""):
        if self.fio("--rw=write", *options, export=export).wait():
            raise RuntimeError("fio failed")


def stalls(server, directory, count, size):
    """The longest latency of the writes that were under way in each snapshot's window, in milliseconds."""
    server.fill("--bs=1m", "--iodepth=8", f"--size={size}")
    control = Control(server.store)
    log = os.path.join(directory, "load")
    load = server.fio(
        "--rw=randwrite", "--iodepth=32", f"--size={size}", "--time_based", "--runtime=3600", "--norandommap",
        f"--write_lat_log={log}", "--log_unix_epoch=1", "--log_avg_msec=1", "--log_max_value=1")
    time.sleep(2)
    begin = time.monotonic()
    before = control.call("store.stats")["writes"]["count"]
    windows = []
    for number in range(count):
        start = time.time()
        took = control.timed("snapshot.create", names=[f"disk@{number}"])
        windows.append((start * 1e3, time.time() * 1e3, took))
        # Ten stay: a store whose snapshots pile up would measure its disk.
        if number >= 10:
            control.call("volume.delete", names=[f"disk@{number - 10}"])
        if load.poll() is not None:
            raise RuntimeError("fio ended before the last snapshot")
        time.sleep(0.15)
    rate = (control.call("store.stats")["writes"]["count"] - before) / (time.monotonic() - begin)
    load.send_signal(signal.SIGINT)
    load.wait()
    writes = []
    with open(f"{log}_clat.1.log", encoding="ascii") as lines:
        for line in lines:
            fields = line.split(",")
            # A millisecond, and the longest of the writes that ended in it.
            writes.append((int(fields[0]), int(fields[1]) / 1e6))
    writes.sort()
    worst, position = [], 0
    for start, end, _ in windows:
        while position < len(writes) and writes[position][0] < start - 1:
            position += 1
        longest, index = 0.0, position
        # What was sent in the window may end behind it.
        while index < len(writes) and writes[index][0] - writes[index][1] <= end + 1:
            longest = max(longest, writes[index][1])
            index += 1
            if writes[min(index, len(writes) - 1)][0] > end + 2000:
                break
        worst.append(longest)
    names = [name["name"] for name in control.call("volume.list", kind="snapshot")["volumes"]]
    control.call("volume.delete", names=names)
    control.finish_deletions()
    return worst, [took for _, _, took in windows], rate


def first_writes(server, count, size):
    """Ordinary writes and first ones after a snapshot, in microseconds, and the bytes that the store read for the latter."""
    control, client = Control(server.store), Client(server.path, "")
    data = os.urandom(BLOCK)
    generator = random.Random(1)

    def place():
        return generator.randrange(size // BLOCK) * BLOCK

    for _ in range(200):
        client.write(place(), data)
    ordinary, first, read = [], [], 0
    for number in range(count):
        ordinary += [client.write(place(), data) for _ in range(10)]
        control.call("snapshot.create", names=[f"disk@first{number}"])
        before = control.call("store.stats")["device"]["bytesRead"]
        first.append(client.write(place(), data))
        read += control.call("store.stats")["device"]["bytesRead"] - before
        control.call("volume.delete", names=[f"disk@first{number}"])
        control.finish_deletions()
        time.sleep(0.01)
    # The same pause before an ordinary one.
    rested = []
    for _ in range(count):
        time.sleep(0.01)
        control.call("store.stats")
        rested.append(client.write(place(), data))
    return ordinary, rested, first, read


def operations(server, volume, count):
    """The median milliseconds of each operation on a volume."""
    control = Control(server.store)
    times = {}

    def note(what, *arguments, **parameters):
        times.setdefault(what, []).append(control.timed(*arguments, **parameters))

    for number in range(count):
        snapshot, clone = f"{volume}@op{number}", f"clone{number}"
        note("snapshot", "snapshot.create", names=[snapshot])
        note("clone", "volume.clone", source=snapshot, name=clone)
        note("rollback", "volume.rollback", snapshot=snapshot, force=True)
        note("delete", "volume.delete", names=[clone, snapshot])
        control.finish_deletions()
    return {what: statistics.median(values) for what, values in times.items()}


def whole_deletion(server, volume):
    """How long a volume's name takes to go, and its space to come back."""
    control = Control(server.store)
    name = control.timed("volume.delete", names=[volume], force=True)
    start = time.perf_counter()
    control.finish_deletions()
    statistic = control.call("store.stats")["checkpoints"]
    return name, (time.perf_counter() - start) * 1e3, statistic["longestSeconds"] * 1e3


def main():
    parser = argparse.ArgumentParser(prog="bench-snapshots")
    parser.add_argument("plugin")
    parser.add_argument("--snapshots", type=int, default=100)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--extents", type=int, default=262144)
    parser.add_argument("--directory", default=tempfile.gettempdir())
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.snapshots, options.size, options.extents = 10, 0.2, 26214
    size = int(options.size * 2**30) // BLOCK * BLOCK

    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        with Server(options.plugin, directory, size) as server:
            worst, took, rate = stalls(server, directory, options.snapshots, size)
            print(f"load: {rate:.0f} writes a second at depth 32, snapshots and deletions included")
            print("longest write of each snapshot's window, ms: " + " ".join(f"{ms:.1f}" for ms in sorted(worst)))
            plain, rested, first, read = first_writes(server, options.snapshots, size)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        with Server(options.plugin, directory, 2**40) as server:
            control = Control(server.store)
            control.call("volume.create", name="small", size=2**40)
            server.fill("--bs=1m", "--size=1m", export="small")
            small = operations(server, "small", 20)
            stride = 2**40 // options.extents - BLOCK
            server.fill(
                "--iodepth=64", f"--size={2**40}", f"--rw=write:{stride}", f"--io_size={options.extents * BLOCK}")
            # Not what the host still has to write.
            operations(server, "disk", 1)
            os.sync()
            time.sleep(1)
            large = operations(server, "disk", 20)
            mapped = control.call("volume.info", name="disk")["mapped"]
            gone, back, step = whole_deletion(server, "disk")

    def median(values):
        return statistics.median(values)

    print(f"snapshot under load: {median(took):.1f} ms; the longest write meanwhile: {median(worst):.1f} ms (wanted: 50)")
    print(
        f"first write after a snapshot: {median(first):.0f} us; an ordinary one {median(rested):.0f} us after a pause, "
        f"{median(plain):.0f} us without: {median(first) / median(rested):.2f} times (wanted: 1.5); "
        f"the device was read for {read} bytes by {len(first)} of them (wanted: 0)")
    for what, milliseconds in small.items():
        print(f"{what}: {milliseconds:.2f} ms with 1 MiB mapped, {large[what]:.2f} ms with {mapped >> 20} MiB over 1 TiB")
    print(
        f"delete of {options.extents} extents: {gone:.1f} ms until the name is gone, {back:.0f} ms until the space is back; "
        f"the longest checkpoint took {step:.0f} ms")


if __name__ == "__main__":
    main()
