"""Does random things to a block device, and compares all that it reads with what it must be.

    device_exerciser.py DEVICE SEED SECONDS [--threads N]

Each thread has a part of the device to itself. All but the last one use O_DIRECT, and their parts begin and end at odd
sectors, so that neighbours share the blocks of whatever is below; the last one goes through the page cache, with writes
of any alignment. They write, read, discard (BLKDISCARD), zero (BLKZEROOUT) and flush. Of what was discarded, whole
blocks of 4096 bytes must read as zeroes, and the rest must be as it was. What the device holds at the beginning is
taken as it is.

It prints the SHA-256 of what the device must hold at the end, or ends with status 1 and the operations that touched the
byte that is wrong. A seed repeats each thread's operations, up to where the time ended.
"""

import argparse
import collections
import fcntl
import hashlib
import mmap
import os
import random
import struct
import sys
import threading
import time

BLKDISCARD = 0x1277
BLKZEROOUT = 0x127F
BLKSSZGET = 0x1268
#: The blocks of the store.
BLOCK = 4096
#: As large as a request gets that the kernel need not split into many.
LARGEST = 256 * 1024
REMEMBERED = 5000


class Different(Exception):
    """The device has other bytes than it must have."""


class Part:
    """What one thread does to one part of the device, and what that must hold."""

    def __init__(self, path, seed, begin, end, sector, is_direct):
        self.chance = random.Random(seed)
        self.begin = begin
        self.size = end - begin
        self.unit = sector if is_direct else 1
        self.sector = sector
        self.is_direct = is_direct
        self.descriptor = os.open(path, os.O_RDWR | (os.O_DIRECT if is_direct else 0))
        # O_DIRECT needs memory that begins at a page.
        self.buffer = mmap.mmap(-1, LARGEST)
        self.counts = collections.Counter()
        self.history = collections.deque(maxlen=REMEMBERED)
        self.model = bytearray(self.size)
        for offset in range(0, self.size, LARGEST):
            length = min(LARGEST, self.size - offset)
            self.model[offset:offset + length] = self.get(offset, length)

    def get(self, offset, length):
        """Reads, and returns a view of the buffer."""
        view = memoryview(self.buffer)[:length]
        done = os.preadv(self.descriptor, [view], self.begin + offset)
        if done != length:
            raise Different(f"{done} of {length} bytes could be read at {self.begin + offset}")
        return view

    def range(self, unit):
        """A place and a length, more often short than long."""
        limit = self.chance.choice((unit, 8 * unit, 4096, 20_000, 70_000, LARGEST)) // unit or 1
        length = self.chance.randint(1, limit) * unit
        last = (self.size - length) // unit
        offset = self.chance.randint(0, last) * unit
        # Often at the borders of the part, which it shares blocks with its neighbours at.
        offset = self.chance.choice((offset, offset, offset, offset, offset, 0, last * unit))
        return offset, length

    def write(self):
        offset, length = self.range(self.unit)
        data = self.chance.randbytes(length)
        self.buffer[:length] = data
        done = os.pwritev(self.descriptor, [memoryview(self.buffer)[:length]], self.begin + offset)
        if done != length:
            raise Different(f"{done} of {length} bytes were written at {self.begin + offset}")
        self.model[offset:offset + length] = data
        return offset, length

    def read(self):
        offset, length = self.range(self.unit)
        self.compare(offset, length)
        return offset, length

    def discard(self):
        offset, length = self.range(self.sector)
        # The blocks that are in it as a whole.
        first = -(-(self.begin + offset) // BLOCK) * BLOCK - self.begin
        last = (self.begin + offset + length) // BLOCK * BLOCK - self.begin
        if not self.is_direct:
            # The page cache shows zeroes where the device keeps what is left over.
            if first >= last:
                return 0, 0
            offset, length = first, last - first
        self.request(BLKDISCARD, offset, length)
        if first < last:
            self.model[first:last] = bytes(last - first)
        return offset, length

    def zero(self):
        offset, length = self.range(self.sector)
        self.request(BLKZEROOUT, offset, length)
        self.model[offset:offset + length] = bytes(length)
        return offset, length

    def request(self, number, offset, length):
        fcntl.ioctl(self.descriptor, number, struct.pack("QQ", self.begin + offset, length))

    def flush(self):
        os.fsync(self.descriptor)
        return 0, 0

    def forget(self):
        """Has the page cache forget what is in it."""
        os.fsync(self.descriptor)
        os.posix_fadvise(self.descriptor, self.begin, self.size, os.POSIX_FADV_DONTNEED)
        return 0, 0

    def compare(self, offset, length):
        found = self.get(offset, length)
        expected = memoryview(self.model)[offset:offset + length]
        if found == expected:
            return
        wrong = [index for index in range(length) if found[index] != expected[index]]
        place = offset + wrong[0]
        text = [f"{len(wrong)} bytes of {length} at {self.begin + offset} are wrong, first {self.begin + place}: "
                f"{found[wrong[0]]:#x} and not {expected[wrong[0]]:#x}, last {self.begin + offset + wrong[-1]}"]
        text += [f"  {number}: {name} {self.begin + at} {count}" for number, name, at, count in self.history
                 if name != "read" and at <= place < at + count]
        raise Different("\n".join(text))

    def compare_all(self):
        for offset in range(0, self.size, LARGEST):
            self.compare(offset, min(LARGEST, self.size - offset))

    def exercise(self, end):
        operations = [self.write] * 8 + [self.read] * 6 + [self.discard] * 3 + [self.zero] * 2 + [self.flush]
        if not self.is_direct:
            operations.append(self.forget)
        number = 0
        while time.monotonic() < end:
            operation = self.chance.choice(operations)
            offset, length = operation()
            number += 1
            self.counts[operation.__name__] += 1
            self.history.append((number, operation.__name__, offset, length))
        self.flush()
        self.compare_all()


def parts_of(path, seed, thread_count):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        sector = struct.unpack("I", fcntl.ioctl(descriptor, BLKSSZGET, bytes(4)))[0]
    finally:
        os.close(descriptor)
    share = size // thread_count
    borders = [index * share // 65536 * 65536 + 3 * sector for index in range(thread_count)] + [size]
    borders[0] = 0
    # The page cache of the last one must not have bytes of its neighbour.
    borders[-2] = borders[-2] // 65536 * 65536
    return [Part(path, f"{seed} {index}", borders[index], borders[index + 1], sector, index < thread_count - 1)
            for index in range(thread_count)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("device")
    parser.add_argument("seed", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()

    parts = parts_of(options.device, options.seed, options.threads)
    end = time.monotonic() + options.seconds
    failures = []

    def work(part):
        try:
            part.exercise(end)
        except (OSError, Different) as error:
            failures.append(f"seed {options.seed}: {error}")

    threads = [threading.Thread(target=work, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"seed {options.seed}: {dict(sum((part.counts for part in parts), collections.Counter()))}", file=sys.stderr)
    if failures:
        sys.exit("\n".join(failures))
    total = hashlib.sha256()
    for part in parts:
        total.update(part.model)
    print(total.hexdigest())


if __name__ == "__main__":
    main()
