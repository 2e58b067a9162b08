"""Writes to a file system and says what is durable, or checks that all of that is there.

    fsync_writer.py write FOLDER SEED [--first N] [--file-bytes N] [--keep N] [--last N]
    fsync_writer.py verify FOLDER SEED ACKNOWLEDGED [--file-bytes N] [--keep N]

Step N writes a record over an old one in the file "ring" and syncs that, or, each fourth one, makes a whole file, syncs it,
gives it its name, and syncs the folder. The number N is printed when it is durable, and not before. Of the files, --keep N
names are used in turn (0: each step has its own). A step that fails ends the program with status 3.

`verify` takes the number of the last step that was acknowledged. Each record and each file must be that of the newest
acknowledged step, or of a later one, and whole.
"""

import argparse
import errno
import os
import random
import struct
import sys

RECORD_BYTES = 4096
RECORD_COUNT = 512
HEADER = struct.Struct("<8sQQ")
MAGIC = b"lacunae2"


def is_file(step):
    return step % 4 == 0


def contents(seed, step, byte_count):
    """What a step writes."""
    source = random.Random(f"{seed} {step}")
    return HEADER.pack(MAGIC, seed, step) + source.randbytes(byte_count - HEADER.size)


def step_of(data):
    """Which step wrote this; none where it is no such thing."""
    if len(data) < HEADER.size:
        return None
    magic, _, step = HEADER.unpack_from(data)
    return step if magic == MAGIC else None


class Folder:
    """The files that a writer uses, and which step writes where."""

    def __init__(self, options):
        self.path = options.folder
        self.seed = options.seed
        self.file_bytes = options.file_bytes
        self.keep = options.keep

    @property
    def ring(self):
        return os.path.join(self.path, "ring")

    def file_index(self, step):
        return (step // 4) % self.keep if self.keep else step // 4

    def file_path(self, index):
        return os.path.join(self.path, f"file-{index}")

    def file_contents(self, step):
        return contents(self.seed, step, self.file_bytes + step % 3 * 1000)

    def sync(self):
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_all(descriptor, data):
    while data:
        data = data[os.write(descriptor, data):]


def write_file(folder, step):
    new = os.path.join(folder.path, "new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(descriptor, folder.file_contents(step))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(new, folder.file_path(folder.file_index(step)))
    folder.sync()


def write_record(folder, ring, step):
    place = step % RECORD_COUNT * RECORD_BYTES
    written = os.pwrite(ring, contents(folder.seed, step, RECORD_BYTES), place)
    if written != RECORD_BYTES:
        raise OSError(errno.ENOSPC, f"{written} bytes were written")
    os.fdatasync(ring)


def write(folder, first, last):
    ring = os.open(folder.ring, os.O_RDWR | os.O_CREAT, 0o644)
    if os.fstat(ring).st_size == 0:
        write_all(ring, bytes(RECORD_BYTES * RECORD_COUNT))
        os.fsync(ring)
        folder.sync()
    step = first
    while last is None or step <= last:
        try:
            if is_file(step):
                write_file(folder, step)
            else:
                write_record(folder, ring, step)
        except OSError as error:
            print(f"step {step}: {error}", file=sys.stderr)
            sys.exit(3)
        print(step, flush=True)
        step += 1


def verify(folder, acknowledged):
    newest_record, newest_file = {}, {}
    for step in range(1, acknowledged + 1):
        if is_file(step):
            newest_file[folder.file_index(step)] = step
        else:
            newest_record[step % RECORD_COUNT] = step
    with open(folder.ring, "rb") as ring:
        data = ring.read()
    if len(data) != RECORD_BYTES * RECORD_COUNT:
        sys.exit(f"the ring has {len(data)} bytes")
    for slot, newest in newest_record.items():
        record = data[slot * RECORD_BYTES:(slot + 1) * RECORD_BYTES]
        found = step_of(record)
        if found is None or found < newest or found % RECORD_COUNT != slot:
            sys.exit(f"record {slot} is of step {found}, and step {newest} was acknowledged")
        if record != contents(folder.seed, found, RECORD_BYTES):
            sys.exit(f"record {slot} of step {found} is not whole")
    for index, newest in newest_file.items():
        with open(folder.file_path(index), "rb") as file:
            data = file.read()
        found = step_of(data)
        if found is None or found < newest or folder.file_index(found) != index:
            sys.exit(f"file {index} is of step {found}, and step {newest} was acknowledged")
        if data != folder.file_contents(found):
            sys.exit(f"file {index} of step {found} is not whole")
    print(f"{len(newest_record)} records and {len(newest_file)} files are as acknowledged")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("write", "verify"))
    parser.add_argument("folder")
    parser.add_argument("seed", type=int)
    parser.add_argument("acknowledged", type=int, nargs="?", default=0)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--last", type=int)
    parser.add_argument("--file-bytes", type=int, default=20_000)
    parser.add_argument("--keep", type=int, default=40)
    options = parser.parse_args()
    if options.action == "write":
        write(Folder(options), options.first, options.last)
    else:
        verify(Folder(options), options.acknowledged)


if __name__ == "__main__":
    main()
