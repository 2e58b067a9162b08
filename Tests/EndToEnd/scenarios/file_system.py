"""A file system on a disk, with several connections and both sizes of sector."""

from ..lab import Lab
from ..scenario import scenario
from ..trees import make_tree, tree_digest

MEBIBYTE = 1 << 20
#: What mkfs may take of the store, and what the files may beyond their own bytes: metadata, and the journal as far as it is used.
MADE_MAX = 8 * MEBIBYTE
BEYOND_MAX = 24 * MEBIBYTE


@scenario("file-system", on_each_file_system=True)
def file_system(lab: Lab) -> None:
    """mkfs, mount, a tree of files with fsync, unmount, a check that finds nothing, the same bytes when mounted again."""
    kind = lab.file_system
    store = lab.store(size="8G")
    server = lab.server(store)
    machine = lab.machine()
    file_count = 1200 if lab.is_native else 300
    # With the last one, all that is else initialised lazily is written as zeroes at once, which must take nothing either.
    for block_size, connections, eagerly in ((512, 4, False), (4096, 4, False), (4096, 1, True)):
        with machine.attached(server, connections=connections, block_size=block_size) as disk:
            lab.equal("connections", connections, store.ask("info", "disk")["clients"])
            machine.run("blkdiscard", disk.device)
            kind.format(machine, disk.device, eagerly=eagerly)
            made = store.mapped("disk")
            lab.at_most("bytes that mkfs takes", MADE_MAX, made)
            with machine.mounted(disk.device, machine.place("mount")) as folder:
                empty = machine.used_bytes(folder)
                make_tree(machine, folder, file_count, block_size + connections)
                machine.run("sync")
                digest = tree_digest(machine, folder)
                used = machine.used_bytes(folder) - empty
            kind.inspect(machine, disk.device)
            with machine.mounted(disk.device, machine.place("mount"), "ro") as folder:
                again = tree_digest(machine, folder)
                lab.equal("the files' digest", digest, again)
        mapped = store.mapped("disk")
        lab.at_most("bytes that files take beyond their own", BEYOND_MAX, mapped - made - used)
    server.stop()
    store.lacuna("check", "--data")
