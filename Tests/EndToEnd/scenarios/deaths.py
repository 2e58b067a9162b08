"""Servers and clients that are killed while a program writes with fsync."""

import random
import statistics

from ..lab import Lab
from ..machine import Disk, Machine, Running
from ..scenario import GUEST, NATIVE, scenario
from ..server import Server, Store
from ..writer import Writer

ROUNDS = 20


@scenario("server-killed-under-qemu", places=(GUEST,))
def server_killed_under_qemu(lab: Lab) -> None:
    """nbdkit is killed 20 times under a disk of QEMU with reconnect-delay: the guest notices nothing."""
    store = lab.store(size="4G")
    server = lab.server(store)
    machine = lab.guest(drives=(qemu_drive(server),))
    chance = random.Random(5)
    writer = Writer(5)
    lab.file_system.format(machine, "/dev/vda")
    with machine.mounted("/dev/vda", machine.place("mount")) as folder:
        running = writer.start(machine, folder)
        pauses = []
        for _ in range(ROUNDS):
            running.wait_for_lines(len(running.lines) + chance.randint(5, 40))
            pauses.append(server.kill())
        running.wait_for_lines(len(running.lines) + 20)
        answers_soon(lab, pauses)
        running.kill()
        running.wait()
        writer.ended()
        machine.shell("echo 3 >/proc/sys/vm/drop_caches")
        writer.verify(machine, folder)
    lab.file_system.inspect(machine, "/dev/vda")
    complaints = [line for line in machine.kernel_log().splitlines() if "error" in line.lower() and "vda" in line]
    lab.equal("errors of the disk in the guest's kernel log", [], complaints)
    machine.stop()
    server.stop()
    store.lacuna("check", "--data")


def answers_soon(lab: Lab, pauses: list[float]) -> None:
    """Fails unless a killed server answers again within a second; now and then others may keep the machine busy."""
    lab.log.write(f"seconds until a killed server answered again: {sorted(pauses)}\n")
    lab.at_most("seconds until a killed server answers again, at the median", 1, statistics.median(pauses))


def qemu_drive(server: Server, export: str = "") -> dict:
    """A disk of a guest over QEMU's own NBD client, as the guide has it."""
    return {"driver": "nbd", "server": {"type": "inet", "host": "127.0.0.1", "port": str(server.port)}, "export": export,
            "reconnect-delay": 60, "discard": "unmap"}


@scenario("server-killed", places=(GUEST, NATIVE), on_each_file_system=True)
def server_killed(lab: Lab) -> None:
    """nbdkit is killed 20 times under a kernel's client, which gets errors and attaches again: all that was durable is there."""
    store = lab.store(size="4G")
    server = lab.server(store)
    machine = lab.machine()
    chance = random.Random(7)
    writer = Writer(7)
    pauses = []
    for number in range(ROUNDS):
        disk = machine.attach(server, connections=1 + number % 4, block_size=4096)
        running = go_on_writing(lab, machine, disk, writer)
        running.wait_for_lines(chance.randint(5, 40))
        pauses.append(server.kill())
        machine.let_go(disk)
        lab.equal("the status of a writer whose disk is gone", 3, running.wait(90).status)
        writer.ended()
        # What the file system could not write is lost to it; unmounting says so, or not.
        machine.run("umount", machine.place("mount"), check=False)
        machine.detach(disk)
    answers_soon(lab, pauses)
    check_afterwards(lab, machine, store, server, writer)


@scenario("client-killed", places=(GUEST, NATIVE), on_each_file_system=True)
def client_killed(lab: Lab) -> None:
    """The client goes in the middle of writing, as in a power cut of its machine."""
    store = lab.store(size="4G")
    server = lab.server(store)
    writer = Writer(11)
    for number in range(3):
        # In one of the rounds QEMU itself is the client, where there is a QEMU.
        by_qemu = number == 1 and not lab.is_native
        machine = lab.guest(drives=(qemu_drive(server),)) if by_qemu else lab.machine()
        disk = Disk(machine, "/dev/vda") if by_qemu else machine.attach(server, connections=2, block_size=4096)
        running = go_on_writing(lab, machine, disk, writer)
        running.wait_for_lines(150)
        machine.lose(disk)
        writer.ended()
    check_afterwards(lab, lab.machine(), store, server, writer)


def go_on_writing(lab: Lab, machine: Machine, disk: Disk, writer: Writer) -> Running:
    """Starts the writer on a new file system, or on the one that it wrote to before, once that is clean and has every step."""
    if writer.before == 0:
        lab.file_system.format(machine, disk.device)
    else:
        lab.file_system.replay(machine, disk.device)
        lab.file_system.inspect(machine, disk.device)
    machine.run("mkdir", "-p", machine.place("mount"))
    machine.run("mount", disk.device, machine.place("mount"))
    if writer.before:
        writer.verify(machine, machine.place("mount"))
    return writer.start(machine, machine.place("mount"))


def check_afterwards(lab: Lab, machine: Machine, store: Store, server: Server, writer: Writer) -> None:
    """The file system is clean after a replay, has every step, and the store is whole."""
    with machine.attached(server, block_size=4096) as disk:
        lab.file_system.replay(machine, disk.device)
        lab.file_system.inspect(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount"), "ro") as folder:
            writer.verify(machine, folder)
    server.stop()
    store.lacuna("check", "--data")
