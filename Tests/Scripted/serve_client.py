"""A client of `lacuna serve` that reconnects, as QEMU does with reconnect-delay: `serve_client.py URI STOP-FILE`.

It writes until STOP-FILE is there, without a flush, then reads all that was acknowledged, and prints how many requests there
were, how long the longest one took, in milliseconds, and how often a connection was refused.
"""

import errno
import os
import random
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import nbd

BLOCK = 4096
RECONNECT_SECONDS = 20

Result = TypeVar("Result")


class Disk:
    """A connection that is made anew when it breaks."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.handle: nbd.NBD | None = None
        #: How often nobody listened.
        self.refusals = 0

    def write(self, data: bytes, offset: int) -> None:
        """Writes, again where the connection broke."""
        self._try(lambda handle: handle.pwrite(data, offset))

    def read(self, size: int, offset: int) -> bytes:
        """Reads, again where the connection broke."""
        return bytes(self._try(lambda handle: handle.pread(size, offset)))

    def _try(self, request: Callable[[nbd.NBD], Result]) -> Result:
        end = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                if self.handle is None:
                    handle = nbd.NBD()
                    handle.connect_uri(self.uri)
                    self.handle = handle
                return request(self.handle)
            except nbd.Error as error:
                if self.handle is None and error.errnum in (errno.ECONNREFUSED, errno.ENOENT):
                    self.refusals += 1
                # A server that answers and refuses is no broken connection.
                if self.handle is not None and self.handle.aio_is_ready():
                    raise
                self.handle = None
                if time.monotonic() > end:
                    raise
                time.sleep(0.005)


def main(uri: str, stop_file: str) -> None:
    """Writes, reads, prints."""
    disk, longest = Disk(uri), 0.0
    acknowledged: dict[int, bytes] = {}
    while not os.path.exists(stop_file):
        block, data = random.randrange(2000), random.randbytes(BLOCK)
        start = time.monotonic()
        disk.write(data, block * BLOCK)
        longest = max(longest, time.monotonic() - start)
        acknowledged[block] = data
    for block, data in acknowledged.items():
        if disk.read(BLOCK, block * BLOCK) != data:
            sys.exit(f"block {block} has lost what was acknowledged")
    print(len(acknowledged), int(longest * 1000), disk.refusals)


main(*sys.argv[1:])
