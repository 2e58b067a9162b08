"""What is deleted in a file system comes back to the host."""

import time

from ..lab import Lab
from ..machine import Machine
from ..scenario import scenario
from ..server import Store

MEBIBYTE = 1 << 20
TOLERANCE = 0.1


@scenario("space", on_each_file_system=True)
def space(lab: Lab) -> None:
    """With fstrim, and with the mount option discard: what the file system uses and what the store takes differ by 10 %."""
    kind = lab.file_system
    # btrfs would else wait for two minutes.
    discard = "discard=sync" if kind.name == "btrfs" else "discard"
    store = lab.store(size="4G")
    server = lab.server(store)
    machine = lab.machine()
    with machine.attached(server, connections=2, block_size=4096) as disk:
        kind.format(machine, disk.device)
        with machine.mounted(disk.device, machine.place("mount")):
            pass
        empty = Usage(lab, store)
        with machine.mounted(disk.device, machine.place("mount")) as folder:
            empty.see(machine, folder)
            churn(machine, folder, "first")
            settle(machine, folder)
            machine.run("fstrim", folder, timeout=120)
            empty.compare(machine, folder, "after fstrim")
        with machine.mounted(disk.device, machine.place("mount"), discard) as folder:
            churn(machine, folder, "second")
            empty.compare(machine, folder, "with the mount option discard")
        kind.inspect(machine, disk.device)
    server.stop()
    store.lacuna("check")


def churn(machine: Machine, folder: str, name: str) -> None:
    """Writes 240 MiB in 120 files, and deletes two thirds of them."""
    machine.shell(f"""
        mkdir {folder}/{name}
        i=0
        while [ $i -lt 120 ]; do
          dd if=/dev/urandom of={folder}/{name}/$i bs=1M count=2 status=none
          i=$((i + 1))
        done
        sync
        i=0
        while [ $i -lt 120 ]; do
          if [ $((i % 3)) -ne 0 ]; then rm {folder}/{name}/$i; fi
          i=$((i + 1))
        done
        sync""", timeout=240)


def settle(machine: Machine, folder: str) -> None:
    """Waits until what was deleted is free.

    XFS frees the blocks of deleted files in the background, also after sync has ended, and fstrim passes over
    what is not free yet. A freeze waits for it.
    """
    machine.run("fsfreeze", "--freeze", folder)
    machine.run("fsfreeze", "--unfreeze", folder)


class Usage:
    """What a file system uses, its volume maps, and its store takes, beyond what they did when it was empty."""

    def __init__(self, lab: Lab, store: Store):
        self.lab = lab
        self.store = store
        self.used = 0
        self.mapped = store.mapped("disk")
        self.allocated = store.allocated

    def see(self, machine: Machine, folder: str) -> None:
        """Takes what the empty file system uses."""
        self.used = machine.used_bytes(folder)

    def compare(self, machine: Machine, folder: str, when: str) -> None:
        """Fails unless the three agree. Discards, and what a store gives back, come in the background, within a moment."""
        used = machine.used_bytes(folder) - self.used
        end = time.monotonic() + 40
        while abs(self.store.allocated - self.allocated - used) > TOLERANCE * used and time.monotonic() < end:
            self.lab.log.write(f"{when}: {self.store.allocated - self.allocated} allocated\n")
            time.sleep(1)
        allocated = self.store.allocated - self.allocated
        mapped = self.store.mapped("disk") - self.mapped
        self.lab.log.write(f"{when}: used {used}, mapped {mapped}, allocated {allocated}\n")
        self.lab.at_most(f"{when}: mapped and used differ", TOLERANCE * used, abs(mapped - used))
        self.lab.at_most(f"{when}: allocated on the host and used differ", TOLERANCE * used, abs(allocated - used))
