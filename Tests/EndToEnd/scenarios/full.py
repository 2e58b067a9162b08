"""A store that runs full under a file system."""

from ..lab import Lab
from ..machine import Machine
from ..scenario import scenario
from ..writer import Writer

MEBIBYTE = 1 << 20


@scenario("store-runs-full", on_each_file_system=True)
def store_runs_full(lab: Lab) -> None:
    """The file system gets errors and keeps what was synced; when there is space again, it works again."""
    kind = lab.file_system
    store = lab.store(size="2G")
    store.lacuna("create", "--volume", "ballast", "--size", "1G")
    server = lab.server(store, f"limit={400 * MEBIBYTE}")
    machine = lab.machine()
    # Most of what the store may have is taken by another volume, which stands for anything that can be deleted.
    with machine.attached(server, "ballast", block_size=4096) as ballast:
        machine.shell(f"dd if=/dev/urandom of={ballast.device} bs=1M count=200 conv=fsync status=none", timeout=120)
    writer = Writer(13, "--file-bytes", str(MEBIBYTE), "--keep", "0")
    disk = machine.attach(server, connections=2, block_size=4096)
    kind.format(machine, disk.device)
    mount(machine, disk.device)
    running = writer.start(machine, machine.place("mount"))
    lab.equal("the status of a writer on a full store", 3, running.wait(200).status)
    lab.log.write(f"the writer: {running.text()}\n")
    lab.at_least("steps before the store was full", 100, writer.ended())
    info = store.ask("info")
    lab.at_most("bytes that the full store has left", 32 * MEBIBYTE, info["limit"] - info["used"])
    unmount(machine)

    # Nothing was lost, and reading needs no space.
    with machine.mounted(disk.device, machine.place("seen"), kind.untouched) as folder:
        machine.run("ls", folder)
    store.lacuna("delete", "ballast", "--yes", "--wait")
    kind.replay(machine, disk.device)
    kind.inspect(machine, disk.device)
    mount(machine, disk.device)
    writer.verify(machine, machine.place("mount"))
    again = writer.start(machine, machine.place("mount"), last=writer.acknowledged + 120)
    lab.equal("the status of a writer that has space again", 0, again.wait(200).status)
    writer.ended()
    writer.verify(machine, machine.place("mount"))
    machine.run("umount", machine.place("mount"), timeout=120)
    kind.inspect(machine, disk.device)
    machine.detach(disk)
    server.stop()
    store.lacuna("check", "--data")


def mount(machine: Machine, device: str) -> None:
    machine.run("mkdir", "-p", machine.place("mount"))
    machine.run("mount", device, machine.place("mount"))


def unmount(machine: Machine) -> None:
    # A file system that could not write all it wanted may say so.
    machine.run("umount", machine.place("mount"), check=False, timeout=120)
    machine.shell(f"! findmnt {machine.place('mount')}")
