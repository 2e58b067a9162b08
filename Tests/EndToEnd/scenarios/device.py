"""A store that has a block device to itself."""

from pathlib import Path

from ..commands import run
from ..lab import Lab
from ..scenario import NATIVE, scenario
from ..server import Store
from ..trees import make_tree, tree_digest

MEBIBYTE = 1 << 20


@scenario("block-device", places=(NATIVE,))
def block_device(lab: Lab) -> None:
    """On a loop device: what is there is not overwritten, a file system, kills, a device that grows, space that goes back to it."""
    image = lab.folder / "device"
    with image.open("wb") as file:
        file.truncate(512 * MEBIBYTE)
    device = run("losetup", "--find", "--show", str(image)).output.strip()
    lab.end_later(lambda: run("losetup", "--detach", device))
    store = Store(Path(device), lab.log)
    create = ("create", "--volume", "disk", "--size", "4G")

    run("mkfs.ext4", "-q", device)
    place = lab.folder / "mount"
    place.mkdir()
    run("mount", device, str(place))
    try:
        refused = store.lacuna(*create, "--force", check=False)
        lab.check("what is mounted is refused", not refused.succeeded and "mounted" in refused.errors, refused.errors)
    finally:
        run("umount", str(place))
    refused = store.lacuna(*create, check=False)
    lab.check("a file system is refused", not refused.succeeded and "ext4" in refused.errors, refused.errors)
    store.lacuna(*create, "--force")

    kind = lab.file_system
    machine = lab.machine()
    server = lab.server(store)
    lab.check("its control socket is not in /dev", not Path(f"{device}.sock").exists())
    with machine.attached(server, connections=2) as disk:
        kind.format(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            make_tree(machine, f"{folder}/files", 300, 1)
            machine.run("sync")
            digest = tree_digest(machine, f"{folder}/files")
    store.lacuna("snapshot", "disk@a")
    for _ in range(5):
        server.kill()
    with machine.attached(server, connections=2) as disk:
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            lab.equal("the files after kills", digest, tree_digest(machine, f"{folder}/files"))
    server.stop()

    with image.open("r+b") as file:
        file.truncate(1024 * MEBIBYTE)
    run("losetup", "--set-capacity", device)
    server = lab.server(store)
    lab.equal("the size of the store on a device that grew", 1024 * MEBIBYTE, store.ask("info")["size"])
    with machine.attached(server, connections=2) as disk:
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            machine.shell(f"dd if=/dev/urandom of={folder}/large bs=1M count=600 conv=fsync status=none", timeout=240)
            lab.equal("the other files", digest, tree_digest(machine, f"{folder}/files"))
        kind.inspect(machine, disk.device)
    lab.at_least("bytes on the host", 600 * MEBIBYTE, image.stat().st_blocks * 512)
    store.lacuna("delete", "disk", "disk@a", "--yes", "--wait")
    lab.check("what was deleted goes back to the device",
              server.wait_until(lambda: image.stat().st_blocks * 512 < 64 * MEBIBYTE, 60), image.stat().st_blocks * 512)
    server.stop()
    store.lacuna("check", "--data")
