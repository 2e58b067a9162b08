"""Kills a served store's nbdkit again and again, and looks for what it had acknowledged; a program inside the machine.

Usage: systemd_deaths.py SERVICE SOCKET ROUNDS

After each kill a client connects at once, before anything serves: it must be let in, and find all that was written,
flushed or not. Prints the seconds from each kill until the first answer, the slowest last.
"""

import os
import random
import signal
import subprocess
import sys
import time

import nbd

BLOCK = 4096
BLOCKS = 2000


def main_process(service: str) -> int:
    """The process that systemd takes for the service; 0 for none."""
    command = ["systemctl", "show", "--property=MainPID", "--value", service]
    return int(subprocess.run(command, check=True, capture_output=True).stdout)


def serving_process(service: str) -> int:
    """The service's nbdkit, once there is one: `lacuna serve` becomes it."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        process = main_process(service)
        if process:
            with open(f"/proc/{process}/comm", encoding="ascii") as name:
                if name.read().strip() == "nbdkit":
                    return process
        time.sleep(0.02)
    raise SystemExit(f"{service} has no nbdkit")


def connect(path: str) -> nbd.NBD:
    """A client; refused is nobody."""
    client = nbd.NBD()
    client.connect_unix(path)
    return client


def main() -> None:
    service, path, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    source = random.Random(17)
    written: dict[int, bytes] = {}
    seconds = []
    for number in range(rounds):
        client = connect(path)
        for _ in range(50):
            offset = source.randrange(BLOCKS) * BLOCK
            written[offset] = source.randbytes(BLOCK)
            client.pwrite(written[offset], offset)
        if number % 2:
            client.flush()
        victim = serving_process(service)
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        late = connect(path)
        late.pread(BLOCK, 0)
        seconds.append(time.monotonic() - began)
        if serving_process(service) == victim:
            raise SystemExit("the server that was killed is still there")
        for offset, expected in written.items():
            if late.pread(BLOCK, offset) != expected:
                raise SystemExit(f"round {number}: what was written at {offset} is not there")
        # The client whose server died is told so.
        try:
            client.pread(BLOCK, 0)
            raise SystemExit("a client was served by a dead server")
        except nbd.Error:
            pass
    print(" ".join(f"{value:.3f}" for value in sorted(seconds)))


main()
