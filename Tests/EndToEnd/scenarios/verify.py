"""Random operations of many kinds, each read compared with what was written."""

import os
import random
import time

from ..lab import Lab
from ..scenario import NATIVE, scenario
from ..trees import tree_digest

#: How long fio goes on.
FIO_SECONDS = 60


@scenario("fio", programs=("fio",), limit=350)
def fio(lab: Lab) -> None:
    """fio: writes of mixed sizes and trims, all verified."""
    store = lab.store(size="1G")
    server = lab.server(store)
    machine = lab.machine()
    end = time.monotonic() + FIO_SECONDS
    rounds = 0
    with machine.attached(server, connections=4, block_size=512) as disk:
        # A dropped trim leaves what the round before has written.
        while rounds < 3 or time.monotonic() < end:
            machine.run(*fio_command(disk.device, "4k" if rounds % 2 else "56k", lab.is_native), timeout=120)
            rounds += 1
    server.stop()
    store.lacuna("check", "--data")


def fio_command(device: str, trim_size: str, is_fast: bool) -> tuple[str, ...]:
    """Writes to two parts of a device at once: to one in mixed sizes, to the other in one size, with trims in between.

    Then the first part is trimmed in pieces, and must have become zeroes. Each round goes over a part once, and trims
    in one size: fio 3.33 reports what is no fault, on any device, where it trims in mixed sizes or goes on for a second
    time.
    """
    scale = 8 if is_fast else 1
    mixed = ("--offset=256M", f"--size={16 * scale}M")
    return (
        "fio", f"--filename={device}", "--direct=1", "--ioengine=libaio", "--iodepth=8", "--randrepeat=0",
        "--verify_fatal=1", "--verify_state_save=0",
        "--name=mixed", *mixed, "--rw=randwrite", "--bsrange=512-256k", "--blockalign=512",
        "--verify=crc32c", "--verify_backlog=64",
        "--name=trims", f"--size={2 * scale if trim_size == '4k' else 16 * scale}M", "--rw=randtrimwrite",
        f"--bs={trim_size}",
        "--verify=crc32c", "--verify_backlog=64", "--trim_percentage=30", "--trim_verify_zero=1", "--trim_backlog=16",
        "--name=trim", *mixed, "--stonewall", "--rw=randtrim", "--bs=64k",
        "--name=zeroes", *mixed, "--stonewall", "--rw=read", "--bs=256k", "--verify=pattern", "--verify_pattern=0")


@scenario("device-exerciser")
def device_exerciser(lab: Lab) -> None:
    """Random writes, discards, zeroing and flushes of several threads, with sectors of 512 and 4096 bytes."""
    store = lab.store(size="48M")
    server = lab.server(store)
    machine = lab.machine()
    seed = new_seed(lab)
    for block_size, connections in ((512, 4), (4096, 2)):
        with machine.attached(server, connections=connections, block_size=block_size) as disk:
            command = machine.program("device_exerciser", disk.device, str(seed), "5" if lab.is_native else "6")
            expected = machine.run(*command, timeout=90).output.strip()
        lab.equal("the SHA-256 of the volume, read by another client", expected, server.digest().split()[0])
    server.stop()
    store.lacuna("check", "--data")


@scenario("file-exerciser", places=(NATIVE,), on_each_file_system=True)
def file_exerciser(lab: Lab) -> None:
    """Random operations on files, by way of the page cache, O_DIRECT and mmap, with remounting in between."""
    kind = lab.file_system
    store = lab.store(size="2G")
    server = lab.server(store)
    machine = lab.machine()
    seed = new_seed(lab)
    with machine.attached(server, connections=4, block_size=512) as disk:
        kind.format(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount"), "discard") as folder:
            command = machine.program("file_exerciser", folder, str(seed), "8", "--device", disk.device)
            machine.run(*command, timeout=90)
            expected = tree_digest(machine, folder)
        kind.inspect(machine, disk.device)
    with machine.attached(server, connections=2, block_size=512) as disk:
        with machine.mounted(disk.device, machine.place("mount"), "ro") as folder:
            lab.equal("the files' digest", expected, tree_digest(machine, folder))
    server.stop()
    store.lacuna("check", "--data")


def new_seed(lab: Lab) -> int:
    """A seed: LACUNA_SEED where it is set, to repeat a run."""
    seed = int(os.environ.get("LACUNA_SEED") or random.randrange(1 << 32))
    lab.log.write(f"LACUNA_SEED={seed}\n")
    return seed
