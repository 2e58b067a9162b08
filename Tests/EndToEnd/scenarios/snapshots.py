"""Snapshots of a disk that is written to, and throwaway copies of one that many use."""

from ..lab import Lab
from ..machine import Machine
from ..scenario import scenario
from ..server import Server
from ..trees import make_tree, tree_digest
from ..writer import Writer

SNAPSHOTS = 4
CLONES = 10


@scenario("snapshot-while-writing", on_each_file_system=True)
def snapshot_while_writing(lab: Lab) -> None:
    """Snapshots from the host while a program writes with fsync: each has all that was durable when it was taken."""
    kind = lab.file_system
    store = lab.store(size="4G")
    server = lab.server(store)
    machine = lab.machine()
    writer = Writer(3)
    taken: dict[str, int] = {}
    with machine.attached(server, connections=2, block_size=4096) as disk:
        kind.format(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            running = writer.start(machine, folder)
            for number in range(SNAPSHOTS):
                running.wait_for_lines(60 * (number + 1))
                taken[f"disk@{number}"] = writer.acknowledged
                store.lacuna("snapshot", f"disk@{number}")
            if kind.can_be_twice:
                look_at_copy(lab, machine, server, "disk@0", writer, taken["disk@0"])
            # A frozen file system needs no replay, so that its snapshot can be mounted as it is.
            machine.run("fsfreeze", "--freeze", folder)
            taken["disk@frozen"] = writer.acknowledged
            store.lacuna("snapshot", "disk@frozen")
            machine.run("fsfreeze", "--unfreeze", folder)
            running.kill()
            running.wait()
            writer.ended()
            writer.verify(machine, folder)
        kind.inspect(machine, disk.device)
    for name, acknowledged in taken.items():
        look_at_copy(lab, machine, server, name, writer, acknowledged)
    with machine.attached(server, "disk@frozen", block_size=4096, read_only=True) as snapshot:
        lab.equal("whether the snapshot is read-only", "1", machine.run("blockdev", "--getro", snapshot.device).output.strip())
        if kind.is_clean_when_frozen:
            kind.inspect(machine, snapshot.device)
        with machine.mounted(snapshot.device, machine.place("frozen"), kind.untouched) as seen:
            writer.verify(machine, seen, taken["disk@frozen"])
    server.stop()
    store.lacuna("check", "--data")


def look_at_copy(lab: Lab, machine: Machine, server: Server, name: str, writer: Writer, acknowledged: int) -> None:
    """A throwaway copy of a snapshot, on which the journal is replayed: clean, and with every step."""
    kind = lab.file_system
    with machine.attached(server, f"{name}+", block_size=4096, slot=1) as copy:
        kind.replay(machine, copy.device)
        kind.inspect(machine, copy.device)
        with machine.mounted(copy.device, machine.place("copy"), "ro") as seen:
            writer.verify(machine, seen, acknowledged)


@scenario("throwaways")
def throwaways(lab: Lab) -> None:
    """Ten throwaway copies of one golden image, attached at once, each written to and compared."""
    kind = lab.file_system
    store = lab.store(volume="golden", size="512M")
    server = lab.server(store)
    machine = lab.machine()
    with machine.attached(server, block_size=4096) as disk:
        kind.format(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            make_tree(machine, folder, 150, 1)
            golden = tree_digest(machine, folder)
    store.lacuna("snapshot", "golden@1")
    digest = server.digest("golden@1")
    mapped = store.mapped("golden")
    disks = [machine.attach(server, "golden@1+", block_size=4096, slot=slot) for slot in range(CLONES)]
    folders = [machine.place(f"clone{slot}") for slot in range(CLONES)]
    for disk, folder in zip(disks, folders):
        machine.run("mkdir", "-p", folder)
        machine.run("mount", disk.device, folder)
    for slot, folder in enumerate(folders):
        make_tree(machine, f"{folder}/own", 60, 100 + slot)
    machine.run("sync")
    machine.shell("echo 3 >/proc/sys/vm/drop_caches")
    own = set()
    for slot, folder in enumerate(folders):
        own.add(tree_digest(machine, f"{folder}/own"))
        machine.run("rm", "-r", f"{folder}/own")
        lab.equal(f"the golden files in copy {slot}", golden, tree_digest(machine, folder))
    lab.equal("different trees in the copies", CLONES, len(own))
    for disk, folder in zip(disks, folders):
        machine.run("umount", folder)
        kind.inspect(machine, disk.device)
    for disk in disks:
        machine.detach(disk)
    lab.equal("the golden image", digest, server.digest("golden@1"))
    lab.equal("what the golden volume maps", mapped, store.mapped("golden"))
    server.stop()
    store.lacuna("check", "--data")
