"""Snapshots of a disk that is written to, and throwaway copies of one that many use."""

from ..lab import Lab
from ..machine import Machine
from ..scenario import scenario
from ..server import Server
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
    taken: list[tuple[str, int]] = []
    with machine.attached(server, connections=2, block_size=4096) as disk:
        kind.format(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            running = writer.start(machine, folder)
            for number in range(SNAPSHOTS):
                running.wait_for_lines(60 * (number + 1))
                acknowledged = writer.acknowledged
                store.lacuna("snapshot", f"disk@{number}")
                taken.append((f"disk@{number}", acknowledged))
            # A frozen file system needs no replay, so that its snapshot can be mounted as it is.
            machine.run("fsfreeze", "--freeze", folder)
            frozen = writer.acknowledged
            store.lacuna("snapshot", "disk@frozen")
            machine.run("fsfreeze", "--unfreeze", folder)
            running.kill()
            running.wait()
            for name, acknowledged in taken:
                look_at_copy(lab, machine, server, name, writer, acknowledged)
            with machine.attached(server, "disk@frozen", block_size=4096, read_only=True, slot=1) as snapshot:
                lab.equal("the snapshot can be written", "1", machine.run("blockdev", "--getro", snapshot.device).output.strip())
                kind.inspect(machine, snapshot.device)
                with machine.mounted(snapshot.device, machine.place("frozen"), kind.untouched) as seen:
                    writer.verify(machine, seen, frozen)
            writer.ended()
            writer.verify(machine, folder)
        kind.inspect(machine, disk.device)
    server.stop()
    store.lacuna("check", "--data")


def look_at_copy(lab: Lab, machine: Machine, server: Server, name: str, writer: Writer, acknowledged: int) -> None:
    """A throwaway copy of a snapshot, on which the journal is replayed: clean, and with every step."""
    kind = lab.file_system
    with machine.attached(server, f"{name}+", block_size=4096, slot=1) as copy:
        # The original is mounted, and XFS and btrfs do not mount two file systems of one identity.
        identity = {"xfs": "nouuid", "btrfs": ""}.get(kind.name, "")
        if kind.name == "btrfs":
            machine.run("btrfstune", "-f", "-u", copy.device, timeout=120)
        with machine.mounted(copy.device, machine.place("copy"), identity):
            pass
        kind.inspect(machine, copy.device)
        with machine.mounted(copy.device, machine.place("copy"), ",".join(filter(None, ("ro", identity)))) as seen:
            writer.verify(machine, seen, acknowledged)


@scenario("throwaways")
def throwaways(lab: Lab) -> None:
    """Ten throwaway copies of one golden image, attached at once, each written to and compared."""
    kind = lab.file_system
    store = lab.store(volume="golden", size="2G")
    server = lab.server(store)
    machine = lab.machine()
    with machine.attached(server, block_size=4096) as disk:
        kind.format(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            machine.run(*machine.program("tree", "make", folder, "150", "1"), timeout=120)
            golden = machine.run(*machine.program("tree", "digest", folder)).output
    store.lacuna("snapshot", "golden@1")
    digest = image_digest(machine, server, "golden@1")
    mapped = store.mapped("golden")
    disks = [machine.attach(server, "golden@1+", block_size=4096, slot=slot) for slot in range(CLONES)]
    folders = [machine.place(f"clone{slot}") for slot in range(CLONES)]
    for disk, folder in zip(disks, folders):
        machine.run("mkdir", "-p", folder)
        machine.run("mount", disk.device, folder)
    for slot, folder in enumerate(folders):
        machine.run(*machine.program("tree", "make", f"{folder}/own", "60", str(100 + slot)), timeout=120)
    machine.run("sync")
    machine.shell("echo 3 >/proc/sys/vm/drop_caches")
    own = set()
    for slot, folder in enumerate(folders):
        own.add(machine.run(*machine.program("tree", "digest", f"{folder}/own")).output)
        machine.run("rm", "-r", f"{folder}/own")
        lab.equal(f"the golden files in copy {slot}", golden, machine.run(*machine.program("tree", "digest", folder)).output)
    lab.equal("different trees in the copies", CLONES, len(own))
    for disk, folder in zip(disks, folders):
        machine.run("umount", folder)
        kind.inspect(machine, disk.device)
    for disk in disks:
        machine.detach(disk)
    lab.equal("the golden image", digest, image_digest(machine, server, "golden@1"))
    lab.equal("what the golden volume maps", mapped, store.mapped("golden"))
    server.stop()
    store.lacuna("check", "--data")


def image_digest(machine: Machine, server: Server, export: str) -> str:
    """A digest of all bytes of an export, as the machine reads them."""
    with machine.attached(server, export, block_size=4096, read_only=True) as disk:
        return machine.shell(f"sha256sum <{disk.device}", timeout=120).output
