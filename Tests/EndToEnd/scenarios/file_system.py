"""A file system on a disk, with several connections and both sizes of sector."""

from ..lab import Lab
from ..scenario import scenario


@scenario("file-system", on_each_file_system=True)
def file_system(lab: Lab) -> None:
    """mkfs, mount, a tree of files with fsync, unmount, a check that finds nothing, the same bytes when mounted again."""
    kind = lab.file_system
    store = lab.store(size="8G")
    server = lab.server(store)
    machine = lab.machine()
    file_count = 1200 if lab.is_native else 300
    for block_size, connections in ((512, 4), (4096, 4), (4096, 1)):
        with machine.attached(server, connections=connections, block_size=block_size) as disk:
            if connections > 1:
                lab.at_least("connections", connections, store.ask("info", "disk")["clients"])
            machine.run("blkdiscard", disk.device)
            kind.format(machine, disk.device)
            made = store.mapped("disk")
            lab.at_most("bytes that mkfs takes, of 8 GiB", 80 << 20, made)
            with machine.mounted(disk.device, machine.place("mount")) as folder:
                machine.run(*machine.program("tree", "make", folder, str(file_count), str(block_size + connections)), timeout=120)
                machine.run("sync")
                digest = machine.run(*machine.program("tree", "digest", folder), timeout=120).output
                used = int(machine.shell(f"df -B1 --output=used {folder} | tail -1").output)
            kind.inspect(machine, disk.device)
            with machine.mounted(disk.device, machine.place("mount"), "ro") as folder:
                again = machine.run(*machine.program("tree", "digest", folder), timeout=120).output
                lab.equal("the files' digest", digest, again)
        lab.at_most("bytes that files take beyond their own, lazy initialisation included", 64 << 20,
                    store.mapped("disk") - made - used)
    server.stop()
    store.lacuna("check", "--data")
