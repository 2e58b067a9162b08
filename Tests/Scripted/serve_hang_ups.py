"""Clients that hang up in the middle of requests: `serve_hang_ups.py URI COUNT`.

Debian 12's nbdkit 1.32.5 is aborted by some of them. Nobody may be refused meanwhile.
"""

import errno
import random
import sys
import time

import nbd

REQUESTS = 64
SIZE = 256 * 1024


def hang_up(uri: str, source: random.Random) -> None:
    """Asks for much, reads little of it, and goes. A connection that breaks is what happens when another one ended nbdkit."""
    handle = nbd.NBD()
    try:
        handle.connect_uri(uri)
    except nbd.Error as error:
        if error.errnum in (errno.ECONNREFUSED, errno.ENOENT):
            raise
        return
    buffers = [nbd.Buffer(SIZE) for _ in range(REQUESTS)]
    try:
        for number, buffer in enumerate(buffers):
            handle.aio_pread(buffer, number * SIZE)
        end = time.monotonic() + source.uniform(0, 0.02)
        while time.monotonic() < end:
            handle.poll(1)
    except nbd.Error:
        pass


def main(uri: str, count: str) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    source = random.Random(seed)
    for _ in range(int(count)):
        hang_up(uri, source)


main(*sys.argv[1:])
