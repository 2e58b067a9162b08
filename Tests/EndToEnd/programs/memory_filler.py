"""Fills more memory than the machine has with a pattern, changes some of it, and checks all of it.

    memory_filler.py EXTRA_MIB

It uses EXTRA_MIB more than what is available, which must come from swap, and prints how many MiB of swap were in use.
It ends with status 1 where a byte is wrong.
"""

import mmap
import random
import sys

CHUNK = 64 * 1024
SPAN = 1 << 20


def kibibytes(key):
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
    raise KeyError(key)


class Pattern:
    """Chunks of bytes that are cut from one string, each at a place of its own, so that no two pages are the same."""

    def __init__(self, seed):
        self.text = memoryview(random.Random(seed).randbytes(SPAN + CHUNK))

    def chunk(self, index):
        begin = index * 7919 % SPAN
        return self.text[begin:begin + CHUNK]


def check(memory, patterns):
    view = memoryview(memory)
    for index, pattern in enumerate(patterns):
        if view[index * CHUNK:(index + 1) * CHUNK] != pattern.chunk(index):
            sys.exit(f"chunk {index} of {len(patterns)} is wrong")
    view.release()


def main():
    count = (kibibytes("MemAvailable") + int(sys.argv[1]) * 1024) * 1024 // CHUNK
    memory = mmap.mmap(-1, count * CHUNK)
    old, new = Pattern(1), Pattern(2)
    patterns = [old] * count
    for index in range(count):
        memory[index * CHUNK:(index + 1) * CHUNK] = old.chunk(index)
    used = kibibytes("SwapTotal") - kibibytes("SwapFree")
    for index in range(0, count, 3):
        memory[index * CHUNK:(index + 1) * CHUNK] = new.chunk(index)
        patterns[index] = new
    check(memory, patterns)
    print(used // 1024)


if __name__ == "__main__":
    main()
