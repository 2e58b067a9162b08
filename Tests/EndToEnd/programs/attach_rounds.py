"""Attaches a disk with nbd-client, makes a file system on it, looks at it, and detaches it, again and again.

    attach_rounds.py HOST PORT FIRST COUNT

Round N has 1 to 4 connections and sectors of 512 or 4096 bytes. It ends with status 1 where a step fails or hangs.
"""

import os
import struct
import subprocess
import sys
import time

DEVICE = "/dev/nbd0"
SYSTEM = "/sys/block/nbd0"
STEP_SECONDS = 30


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=STEP_SECONDS, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout.decode(errors='replace')}")


def wait_until(what, condition):
    end = time.monotonic() + STEP_SECONDS
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"not within {STEP_SECONDS} s: {what}")
        time.sleep(0.01)


def is_attached():
    return os.path.exists(f"{SYSTEM}/pid")


def size():
    with open(f"{SYSTEM}/size", encoding="ascii") as file:
        return int(file.read())


def label():
    """The label in the file system's superblock, as the disk has it."""
    descriptor = os.open(DEVICE, os.O_RDONLY)
    try:
        superblock = os.pread(descriptor, 1024, 1024)
    finally:
        os.close(descriptor)
    if struct.unpack_from("<H", superblock, 0x38)[0] != 0xEF53:
        sys.exit("there is no file system")
    return superblock[0x78:0x88].rstrip(b"\0").decode()


def attach(host, port, number):
    run("nbd-client", host, port, DEVICE, "-N", "", "-C", str(1 + number % 4), "-b", str((512, 4096)[number // 4 % 2]))
    wait_until("attached", lambda: is_attached() and size() > 0)


def detach():
    run("nbd-client", "-d", DEVICE)
    wait_until("detached", lambda: not is_attached())


def main():
    host, port, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    for number in range(first, first + count):
        attach(host, port, number)
        # The one of the round before is still there.
        if number and label() != f"round-{number - 1}":
            sys.exit(f"round {number} found {label()}")
        # Half of the time would go into the journal.
        run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-L", f"round-{number}", DEVICE)
        detach()


if __name__ == "__main__":
    main()
