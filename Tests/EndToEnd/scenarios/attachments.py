"""Clients that come and go: nothing of them stays in the server."""

from ..guest import HOST
from ..lab import Lab
from ..scenario import GUEST, scenario
from ..server import Server, Store

MIB = 1 << 20
#: The first of these rounds are for the server to reach the size that it stays at. The last ones of each batch are
#: alike.
BATCHES = (40, 80, 80)


@scenario("attachments", places=(GUEST,), limit=400)
def attachments(lab: Lab) -> None:
    """A disk is attached, gets a file system, and is detached, 200 times: no hang, and all is given back."""
    store = lab.store(size="16M")
    server = lab.server(store)
    idle = held(server)
    machine = lab.guest()
    rounds = 0
    figures = []
    for count in BATCHES:
        machine.run(*machine.program("attach_rounds", HOST, str(server.port), str(rounds), str(count)), timeout=240)
        rounds += count
        figures.append(Figures(lab, server, store))
        # Its threads for clients end a moment after them.
        server.wait_until(lambda: held(server) == idle, 10)
        lab.equal("descriptors and threads", idle, held(server))
    before, after = figures[0], figures[-1]
    lab.at_most("KiB of memory that the server has more", 2048, after.memory - before.memory)
    lab.at_most("bytes that the volume maps more", MIB // 4, after.mapped - before.mapped)
    lab.at_most("bytes that the store uses more", MIB, after.used - before.used)
    # It gives back in the background what it does not use.
    lab.at_most("bytes that the store takes more", 8 * MIB, after.allocated - before.allocated)
    lab.equal("clients", 0, store.ask("info", "disk")["clients"])
    with machine.attached(server) as disk:
        lab.file_system.inspect(machine, disk.device)
    server.stop()
    store.lacuna("check", "--data")


def held(server: Server) -> tuple[int, int]:
    """The descriptors and threads that a server has."""
    return server.descriptors(), server.status("Threads")


class Figures:
    """The memory and space that a server has when all its clients have gone."""

    def __init__(self, lab: Lab, server: Server, store: Store):
        lab.check("all clients go", server.wait_until(lambda: store.ask("info", "disk")["clients"] == 0, 10))
        self.mapped = store.mapped("disk")
        self.used = store.ask("info")["used"]
        # Its own, without the pages of the journal that it maps.
        self.memory = server.status("RssAnon")
        self.allocated = store.allocated
        lab.log.write(f"{vars(self)}\n")
