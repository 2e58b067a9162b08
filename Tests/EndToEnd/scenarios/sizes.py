"""Disks that may only be read, and disks that become larger and smaller."""

from ..file_systems import EXT4
from ..lab import Lab
from ..machine import Machine
from ..scenario import scenario
from ..server import Server
from ..trees import make_tree, tree_digest

MIB = 1 << 20

#: A file that is larger than the disk before it grew, and the pieces of 256 KiB that are written to it.
LARGE_MIB = 400
PIECES = " ".join(str(place * 4) for place in range(0, LARGE_MIB, 31))


@scenario("read-only")
def read_only(lab: Lab) -> None:
    """A snapshot, a disk that the client attaches for reading, a volume that is read-only, and a server that is.

    All can be mounted, and no write changes anything.
    """
    store = lab.store(size="256M")
    server = lab.server(store)
    machine = lab.machine()
    with machine.attached(server, connections=2, block_size=4096) as disk:
        lab.file_system.format(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            make_tree(machine, folder, 50, 12)
            expected = tree_digest(machine, folder)
    store.lacuna("snapshot", "disk@kept")
    try_to_write(lab, machine, server, expected, "disk@kept", read_only=True)
    # The server says that it is read-only, and the client need not know.
    try_to_write(lab, machine, server, expected, "disk@kept", read_only=False)
    try_to_write(lab, machine, server, expected, "disk", read_only=True)
    store.lacuna("set", "disk", "--read-only")
    try_to_write(lab, machine, server, expected, "disk", read_only=False)
    store.lacuna("set", "disk", "--no-read-only")
    lab.equal("differences to the snapshot", [], store.ask("diff", "disk@kept", "disk")["extents"])
    server.stop()
    server = lab.server(store, "-r")
    try_to_write(lab, machine, server, expected, "disk", read_only=False)
    server.stop()
    lab.equal("differences to the snapshot", [], store.ask("diff", "disk@kept", "disk")["extents"])
    store.lacuna("check", "--data")


def try_to_write(lab: Lab, machine: Machine, server: Server, expected: str, export: str, *, read_only: bool) -> None:
    """Attaches a disk, on which all kinds of writing must fail, and reading must not."""
    with machine.attached(server, export, connections=2, block_size=4096, read_only=read_only) as disk:
        lab.equal(f"{export} is read-only", "1", machine.run("blockdev", "--getro", disk.device).output.strip())
        for command in (("dd", "if=/dev/zero", f"of={disk.device}", "bs=4096", "count=1", "oflag=direct"),
                        ("blkdiscard", disk.device), ("blkdiscard", "--zeroout", disk.device),
                        ("mkfs.ext4", "-F", disk.device)):
            lab.check(f"{command[0]} fails", not machine.run(*command, check=False).succeeded)
        lab.file_system.inspect(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount"), "ro") as folder:
            lab.check("touch fails", not machine.run("touch", f"{folder}/new", check=False).succeeded)
            lab.check("it cannot be mounted for writing",
                      not machine.run("mount", "-o", "remount,rw", folder, check=False).succeeded)
            lab.equal("the files", expected, tree_digest(machine, folder))


@scenario("resize", on_each_file_system=True)
def resize(lab: Lab) -> None:
    """A disk grows on the host while it is used, and its file system when it is attached again; ext4 shrinks too."""
    kind = lab.file_system
    store = lab.store(size="320M")
    server = lab.server(store)
    machine = lab.machine()
    with machine.attached(server, connections=2, block_size=4096) as disk:
        kind.format(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            make_tree(machine, folder, 40, 13)
            store.lacuna("resize", "disk", "512M")
            lab.equal("a connected client's size", 320 * MIB, size_of(machine, disk.device))
            make_tree(machine, f"{folder}/while", 20, 14)
            files = tree_digest(machine, folder)
    with machine.attached(server, connections=2, block_size=4096) as disk:
        lab.equal("the size", 512 * MIB, size_of(machine, disk.device))
        kind.inspect(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            lab.equal("the files", files, tree_digest(machine, folder))
        large = grow(lab, machine, disk.device)
        kind.inspect(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            lab.equal("the large file", large, digest_of_pieces(machine, f"{folder}/large"))
            machine.run("rm", f"{folder}/large")
            lab.equal("the files", files, tree_digest(machine, folder))
        if kind is EXT4:
            machine.run("e2fsck", "-f", "-p", disk.device)
            machine.run("resize2fs", disk.device, "150M", timeout=120)
            # To be gone for good when the disk is smaller.
            machine.shell(
                f"tr '\\0' x </dev/zero | dd of={disk.device} bs=1M count=2 seek=300 iflag=fullblock oflag=direct")
            refused = store.lacuna("resize", "disk", "160M", "--yes", check=False)
            lab.check("a disk in use does not shrink", not refused.succeeded and "client" in refused.errors,
                      refused.errors)
    if kind is EXT4:
        shrink(lab, machine, server, files)
    server.stop()
    store.lacuna("check", "--data")


def grow(lab: Lab, machine: Machine, device: str) -> str:
    """Grows the file system, and makes a file that the old size had no place for. Returns the digest of its pieces."""
    kind = lab.file_system
    # Growing a mounted ext4 needs a privilege that root need not have on this machine; a guest has it.
    is_offline = lab.is_native and kind is EXT4
    if is_offline:
        machine.run("e2fsck", "-f", "-p", device)
        kind.enlarge(machine, device, "")
    with machine.mounted(device, machine.place("mount")) as folder:
        if not is_offline:
            kind.enlarge(machine, device, folder)
        path = f"{folder}/large"
        machine.run("fallocate", "-l", f"{LARGE_MIB}M", path)
        machine.shell(f"for i in {PIECES}; do "
                      f"dd if=/dev/urandom of={path} bs=256K count=1 seek=$i conv=notrunc status=none; done")
        machine.run("sync")
        return digest_of_pieces(machine, path)


def digest_of_pieces(machine: Machine, path: str) -> str:
    return machine.shell(
        f"for i in {PIECES}; do dd if={path} bs=256K count=1 skip=$i status=none; done | sha256sum").output


def shrink(lab: Lab, machine: Machine, server: Server, files: str) -> None:
    """Makes the disk smaller, and larger again: what was cut off does not come back."""
    server.store.lacuna("resize", "disk", "160M", "--yes")
    with machine.attached(server, connections=2, block_size=4096) as disk:
        lab.equal("the size", 160 * MIB, size_of(machine, disk.device))
        EXT4.inspect(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            lab.equal("the files", files, tree_digest(machine, folder))
    server.store.lacuna("resize", "disk", "512M")
    back = [extent for extent in server.store.ask("map", "disk")
            if extent["data"] and extent["start"] + extent["length"] > 160 * MIB]
    lab.equal("data behind the end that the disk had", [], back)
    with machine.attached(server, connections=2, block_size=4096) as disk:
        lab.equal("the size", 512 * MIB, size_of(machine, disk.device))
        machine.shell(f"dd if={disk.device} bs=1M skip=298 count=6 | cmp -n {6 * MIB} - /dev/zero")
        EXT4.inspect(machine, disk.device)


def size_of(machine: Machine, device: str) -> int:
    return int(machine.run("blockdev", "--getsize64", device).output)
