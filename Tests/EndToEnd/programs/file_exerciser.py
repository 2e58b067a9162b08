"""Does random things to files of a mounted file system, and compares all that it reads with what they must hold.

    file_exerciser.py FOLDER SEED SECONDS [--device DEVICE]

Three files, of up to 4 MiB each, are written and read with any size and alignment, by way of the page cache, O_DIRECT
and mmap; truncated, and changed by fallocate in each way that the file system has; copied into each other, synced, and
dropped from the page cache. With --device it also unmounts and mounts the file system again, from time to time and at
the end. It ends with status 1 and the last operations on the file where one has other bytes than it must have. A seed
repeats the operations, up to where the time ended.
"""

import argparse
import collections
import ctypes
import errno
import mmap
import os
import random
import subprocess
import sys
import time

LARGEST = 4 << 20
PAGE = mmap.PAGESIZE
FILE_COUNT = 3
REMEMBERED = 60
REMOUNTS = 3

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 1, 2, 8, 16, 32

LIBC = ctypes.CDLL(None, use_errno=True)


class Different(Exception):
    """A file has other bytes than it must have."""


def fallocate(descriptor, mode, offset, length):
    if LIBC.fallocate(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class File:
    """A file, and the bytes that it must have."""

    def __init__(self, path, chance):
        self.path = path
        self.chance = chance
        self.model = bytearray()
        self.history = collections.deque(maxlen=REMEMBERED)
        self.buffer = mmap.mmap(-1, LARGEST)
        self.descriptor = self.direct = -1
        self.open()

    def open(self):
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        self.direct = os.open(self.path, os.O_RDWR | os.O_DIRECT)

    def close(self):
        os.close(self.descriptor)
        os.close(self.direct)

    def note(self, *what):
        self.history.append(" ".join(map(str, what)))

    def fail(self, text):
        raise Different("\n".join([f"{self.path}: {text}", *(f"  {line}" for line in self.history)]))

    # Where, and how much.

    def range(self, limit, unit=0):
        """A place and a length that end at `limit` or before, in units of a random size unless one is given."""
        unit = unit or self.chance.choice((1, 1, 512, PAGE))
        units = limit // unit
        if units == 0:
            return 0, 0
        length = self.chance.randint(1, min(units, self.chance.choice((1, 100, 5000, 70_000, 400_000)) // unit or 1))
        return self.chance.randint(0, units - length) * unit, length * unit

    def put(self, offset, data):
        """What a write does to the model."""
        end = offset + len(data)
        if end > len(self.model):
            self.model.extend(bytes(end - len(self.model)))
        self.model[offset:end] = data

    def clear(self, offset, length):
        """Makes what there is of a range zeroes; the file stays as long as it is."""
        length = min(length, len(self.model) - offset)
        if length > 0:
            self.put(offset, bytes(length))

    def compare(self, data, offset):
        expected = self.model[offset:offset + len(data)]
        if data == expected:
            return
        wrong = [index for index in range(len(data)) if data[index] != expected[index]]
        self.fail(f"{len(wrong)} bytes of {len(data)} at {offset} are wrong, first {offset + wrong[0]}: "
                  f"{data[wrong[0]]:#x} and not {expected[wrong[0]]:#x}, last {offset + wrong[-1]}")

    def compare_all(self):
        size = os.fstat(self.descriptor).st_size
        if size != len(self.model):
            self.fail(f"it has {size} bytes and not {len(self.model)}")
        data = os.pread(self.descriptor, LARGEST + 1, 0)
        if len(data) != size:
            self.fail(f"{len(data)} of {size} bytes could be read")
        self.compare(data, 0)

    # Operations.

    def write(self):
        offset, length = self.range(LARGEST)
        self.note("write", offset, length)
        data = self.chance.randbytes(length)
        done = os.pwrite(self.descriptor, data, offset)
        if done != length:
            self.fail(f"{done} of {length} bytes were written")
        self.put(offset, data)

    def read(self):
        offset, length = self.range(len(self.model))
        self.note("read", offset, length)
        data = os.pread(self.descriptor, length, offset)
        if len(data) != length:
            self.fail(f"{len(data)} of {length} bytes could be read")
        self.compare(data, offset)

    def write_directly(self):
        offset, length = self.range(LARGEST, PAGE)
        self.note("write with O_DIRECT", offset, length)
        data = self.chance.randbytes(length)
        self.buffer[:length] = data
        done = os.pwritev(self.direct, [memoryview(self.buffer)[:length]], offset)
        if done != length:
            self.fail(f"{done} of {length} bytes were written")
        self.put(offset, data)

    def read_directly(self):
        offset, length = self.range(LARGEST, PAGE)
        self.note("read with O_DIRECT", offset, length)
        done = os.preadv(self.direct, [memoryview(self.buffer)[:length]], offset)
        if done != min(length, max(0, len(self.model) - offset)):
            self.fail(f"{done} bytes could be read of {length} at {offset} in a file of {len(self.model)}")
        self.compare(self.buffer[:done], offset)

    def mapped(self, change):
        """Maps some of the file into memory, and has `change` use it."""
        offset, length = self.range(len(self.model))
        if length == 0:
            return
        self.note(change.__name__, offset, length)
        begin = offset // PAGE * PAGE
        with mmap.mmap(self.descriptor, offset + length - begin, offset=begin) as memory:
            change(memory, begin, offset, length)

    def write_mapped(self):
        def write_in_memory(memory, begin, offset, length):
            data = self.chance.randbytes(length)
            memory[offset - begin:offset - begin + length] = data
            self.put(offset, data)
            if self.chance.random() < 0.3:
                memory.flush()

        self.mapped(write_in_memory)

    def read_mapped(self):
        def read_in_memory(memory, begin, offset, length):
            self.compare(memory[offset - begin:offset - begin + length], offset)

        self.mapped(read_in_memory)

    def truncate(self):
        size = self.chance.choice((0, self.chance.randint(0, LARGEST), self.chance.randint(0, LARGEST // PAGE) * PAGE,
                                   max(0, len(self.model) - self.chance.randint(0, 10_000)),
                                   min(LARGEST, len(self.model) + self.chance.randint(0, 10_000))))
        self.note("truncate", size)
        os.ftruncate(self.descriptor, size)
        del self.model[size:]
        self.put(size, b"")

    def reserve(self):
        offset, length = self.range(LARGEST)
        mode = self.chance.choice((0, KEEP_SIZE))
        self.note("fallocate", mode, offset, length)
        fallocate(self.descriptor, mode, offset, length)
        if mode == 0:
            self.put(offset + length, b"")

    def punch(self):
        offset, length = self.range(LARGEST)
        self.note("punch a hole", offset, length)
        fallocate(self.descriptor, PUNCH_HOLE | KEEP_SIZE, offset, length)
        self.clear(offset, length)

    def zero(self):
        offset, length = self.range(LARGEST)
        mode = ZERO_RANGE | self.chance.choice((0, KEEP_SIZE))
        self.note("zero", mode, offset, length)
        fallocate(self.descriptor, mode, offset, length)
        if mode == ZERO_RANGE:
            self.put(offset, bytes(length))
        else:
            self.clear(offset, length)

    def collapse(self):
        # What is cut out must end before the end of the file.
        offset, length = self.range(max(0, len(self.model) - 1), self.block)
        if length == 0:
            return
        self.note("collapse", offset, length)
        fallocate(self.descriptor, COLLAPSE_RANGE, offset, length)
        del self.model[offset:offset + length]

    def insert(self):
        offset, _ = self.range(len(self.model), self.block)
        length = self.chance.randint(1, 30) * self.block
        if offset >= len(self.model) or len(self.model) + length > LARGEST:
            return
        self.note("insert", offset, length)
        fallocate(self.descriptor, INSERT_RANGE, offset, length)
        self.model[offset:offset] = bytes(length)

    @property
    def block(self):
        return os.fstatvfs(self.descriptor).f_bsize

    def sync(self):
        self.note("fsync")
        self.chance.choice((os.fsync, os.fdatasync))(self.descriptor)

    def forget(self):
        self.note("forget")
        os.fsync(self.descriptor)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def copy_from(self, other):
        """copy_file_range, which shares blocks of the two where the file system can."""
        source, length = other.range(len(other.model))
        if length == 0:
            return
        target = self.chance.randint(0, (LARGEST - length) // PAGE) * PAGE
        self.note("copy", source, length, "of", other.path, "to", target)
        done = 0
        while done < length:
            count = os.copy_file_range(other.descriptor, self.descriptor, length - done, source + done, target + done)
            if count == 0:
                self.fail(f"{done} of {length} bytes were copied")
            done += count
        self.put(target, other.model[source:source + length])


class Exercise:
    """All files, and what is done to them."""

    OPERATIONS = (File.write,) * 5 + (File.read,) * 4 + (File.write_directly, File.read_directly) * 3 + (
        File.write_mapped, File.read_mapped) * 3 + (File.truncate, File.reserve, File.punch, File.zero, File.collapse,
                                                    File.insert, File.sync, File.forget, File.copy_from)

    def __init__(self, folder, seed, device):
        self.chance = random.Random(seed)
        self.folder = folder
        self.device = device
        self.files = [File(os.path.join(folder, f"exercised-{index}"), self.chance) for index in range(FILE_COUNT)]
        self.operations = list(self.OPERATIONS)
        self.counts = collections.Counter()

    def step(self):
        operation = self.chance.choice(self.operations)
        file, other = self.chance.sample(self.files, 2)
        try:
            if operation is File.copy_from:
                file.copy_from(other)
            else:
                operation(file)
        except OSError as error:
            # Not every file system has all ways of fallocate, and each says so at once.
            if error.errno != errno.EOPNOTSUPP or operation not in (File.zero, File.collapse, File.insert):
                raise Different(f"{file.path}: {error}, in: {file.history[-1]}") from error
            self.operations.remove(operation)
            print(f"the file system does not have: {operation.__name__}")
            return
        self.counts[operation.__name__] += 1

    def compare_all(self):
        for file in self.files:
            file.compare_all()

    def remount(self):
        for file in self.files:
            file.note("remount")
            file.close()
        subprocess.run(["umount", self.folder], check=True)
        subprocess.run(["mount", "-o", "discard", self.device, self.folder], check=True)
        for file in self.files:
            file.open()

    def run(self, seconds):
        for _ in range(REMOUNTS):
            end = time.monotonic() + seconds / REMOUNTS
            while time.monotonic() < end:
                self.step()
            self.compare_all()
            if self.device:
                self.remount()
                self.compare_all()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("seed", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--device")
    options = parser.parse_args()
    exercise = Exercise(options.folder, options.seed, options.device)
    try:
        exercise.run(options.seconds)
    except Different as error:
        sys.exit(f"seed {options.seed}: {error}")
    finally:
        print(f"seed {options.seed}: {dict(exercise.counts)}")
    for file in exercise.files:
        file.close()


if __name__ == "__main__":
    main()
