"""What lies between a disk and a file system: partitions, LVM; and swap."""

from ..guest import HOST
from ..lab import Lab
from ..machine import Disk, Machine
from ..scenario import GUEST, scenario
from ..server import Store
from ..trees import make_tree, tree_digest

MIB = 1 << 20

#: For a machine without udev.
LVM_CONFIGURATION = """
devices { obtain_device_list_from_udev = 0 external_device_info_source = "none" use_devicesfile = 0 issue_discards = 1 }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
backup { backup = 0 archive = 0 }
"""

#: The sizes of the partitions, in MiB.
PARTITIONS = {1: 128, 2: 192}


@scenario("swap", places=(GUEST,))
def swap(lab: Lab) -> None:
    """Swap on the disk, of a machine with little memory, for a program that needs more."""
    store = lab.store(size="512M")
    server = lab.server(store)
    machine = lab.guest(memory="320M")
    # Swap over a network needs memory to send with, or the kernel waits for itself.
    machine.shell("echo 32768 >/proc/sys/vm/min_free_kbytes")
    machine.run("nbd-client", HOST, str(server.port), "/dev/nbd0", "-N", "", "-C", "2", "-swap")
    machine.run("mkswap", "/dev/nbd0")
    machine.run("swapon", "/dev/nbd0")
    used = int(machine.run(*machine.program("memory_filler", "56"), timeout=180).output)
    lab.at_least("MiB of swap in use", 40, used)
    # What belongs to the guest's files goes first, and is not needed again.
    lab.at_least("bytes that came back", 40 * MIB, store.ask("stats")["reads"]["bytes"])
    machine.run("swapoff", "/dev/nbd0", timeout=120)
    lab.at_least("bytes that the store has of them", 40 * MIB, store.mapped("disk"))
    machine.run("swapon", "--discard=once", "/dev/nbd0")
    lab.at_most("bytes that are left after a discard", MIB, store.mapped("disk"))
    machine.run("swapoff", "/dev/nbd0")
    machine.detach(Disk(machine, "/dev/nbd0"))
    server.stop()
    store.lacuna("check", "--data")


@scenario("lvm", places=(GUEST,), programs=("lvm",))
def lvm(lab: Lab) -> None:
    """A logical volume over two disks, with a snapshot; the disks come back in another order."""
    kind = lab.file_system
    store = lab.store(size="128M")
    store.lacuna("create", "--volume", "other", "--size", "256M")
    server = lab.server(store)
    machine = lab.machine()
    machine.shell(f"modprobe dm_mod; mkdir -p /etc/lvm; echo '{LVM_CONFIGURATION}' >/etc/lvm/lvm.conf")
    volume, snapshot = "/dev/group/volume", "/dev/group/before"
    with machine.attached(server, "disk", connections=2) as first, machine.attached(server, "other", slot=1) as second:
        machine.run("lvm", "pvcreate", first.device, second.device)
        machine.run("lvm", "vgcreate", "group", first.device, second.device)
        machine.run("lvm", "lvcreate", "--yes", "--name", "volume", "--size", "280M", "group")
        kind.format(machine, volume)
        with machine.mounted(volume, machine.place("mount")) as folder:
            make_tree(machine, f"{folder}/before", 50, 9)
            before = tree_digest(machine, folder)
            machine.run("lvm", "lvcreate", "--yes", "--snapshot", "--name", "before", "--size", "60M", "group/volume")
            make_tree(machine, f"{folder}/after", 50, 10)
            after = tree_digest(machine, folder)
            with machine.mounted(snapshot, machine.place("before"), "ro") as seen:
                lab.equal("the snapshot's files", before, tree_digest(machine, seen))
        machine.run("lvm", "vgchange", "--activate", "n", "group")
    with machine.attached(server, "other", connections=2), machine.attached(server, "disk", slot=1):
        machine.run("lvm", "vgchange", "--activate", "y", "group")
        kind.inspect(machine, volume)
        with machine.mounted(volume, machine.place("mount")) as folder:
            lab.equal("the files", after, tree_digest(machine, folder))
        with machine.mounted(snapshot, machine.place("before"), "ro") as seen:
            lab.equal("the snapshot's files", before, tree_digest(machine, seen))
        # With issue_discards.
        machine.run("lvm", "lvremove", "--yes", "group/before", "group/volume")
        machine.run("lvm", "vgchange", "--activate", "n", "group")
        lab.at_most("bytes that are left of the volumes", 4 * MIB, store.mapped("disk") + store.mapped("other"))
    server.stop()
    store.lacuna("check", "--data")


@scenario("partitions")
def partitions(lab: Lab) -> None:
    """Two partitions; then each of them alone, through nbdkit's partition filter; then both again."""
    kind = lab.file_system
    store = lab.store(size="512M")
    server = lab.server(store)
    machine = lab.machine()
    digests: dict[int, str] = {}
    with machine.attached(server, connections=2) as disk:
        lines = ["label: gpt", *(f"size={size}MiB" for size in PARTITIONS.values())]
        machine.run("sfdisk", "--quiet", disk.device, stdin="\n".join(lines))
        for number in PARTITIONS:
            partition = device_of_partition(lab, machine, disk, number)
            kind.format(machine, partition)
            with machine.mounted(partition, machine.place("mount")) as folder:
                make_tree(machine, f"{folder}/first", 50, number)
    server.stop()
    for number in PARTITIONS:
        digests[number] = change_through_filter(lab, machine, store, number)
    server = lab.server(store)
    with machine.attached(server, connections=2) as disk:
        machine.run("sfdisk", "--verify", disk.device)
        for number in PARTITIONS:
            partition = device_of_partition(lab, machine, disk, number)
            kind.inspect(machine, partition)
            with machine.mounted(partition, machine.place("mount"), "ro") as folder:
                lab.equal(f"the files of partition {number}", digests[number], tree_digest(machine, folder))
    server.stop()
    store.lacuna("check", "--data")


def change_through_filter(lab: Lab, machine: Machine, store: Store, number: int) -> str:
    """Serves one partition as a whole disk, and adds files to it. Returns the digest of all."""
    server = lab.server(store, "--filter=partition", f"partition={number}")
    with machine.attached(server, connections=2) as disk:
        lab.equal(f"the size of partition {number}", PARTITIONS[number] * MIB,
                  int(machine.run("blockdev", "--getsize64", disk.device).output))
        lab.file_system.inspect(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            make_tree(machine, f"{folder}/second", 50, 10 + number)
            found = tree_digest(machine, folder)
    server.stop()
    return found


def device_of_partition(lab: Lab, machine: Machine, disk: Disk, number: int) -> str:
    """The device of a partition, which a kernel makes in the background, if it knows this kind of table."""
    device = disk.partition(number)
    if lab.is_native:
        machine.run("partx", "--update", disk.device)
    machine.shell(f"until [ -b {device} ]; do sleep 0.05; done", timeout=20)
    return device
