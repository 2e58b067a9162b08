"""Servers between a client and the store that go on when nbdkit is killed, for clients that do not."""

import subprocess
import threading
import time
from pathlib import Path

from ..client import Exercise, connected
from ..commands import Failed
from ..lab import Lab
from ..scenario import HOST, scenario
from ..server import Server
from .filters import MEBIBYTE, filled, stop

KILLS = 5


@scenario("go-between", places=(HOST,))
def go_between(lab: Lab) -> None:
    """nbdkit is killed again and again behind qemu-nbd, and behind nbdkit's filter retry: no request fails."""
    store = lab.store(size="8M")
    model = filled(lab, store, 8 * MEBIBYTE, 140)
    server = lab.server(store)
    below = f"driver=nbd,server.type=unix,server.path={server.socket_path},export=disk,reconnect-delay=60,discard=unmap"
    commands = (
        ("qemu-nbd", "--persistent", "--shared=4", "--discard=unmap", "--image-opts", below, "--socket={}"),
        ("nbdkit", "--foreground", "--exit-with-parent", "--unix={}", "nbd", f"socket={server.socket_path}",
         "export=disk", "--filter=retry", "retry-delay=1"),
    )
    for number, command in enumerate(commands):
        path = lab.folder / f"between{number}"
        process = start(lab, path, *(part.replace("{}", str(path)) for part in command))
        uri = f"nbd+unix:///?socket={path}"
        with connected(uri) as first, connected(uri) as second:
            use = Exercise([first, second], model, 141 + number, unit=512)
            killer = threading.Thread(target=kill, args=(server,))
            killer.start()
            while killer.is_alive():
                use.run(20)
            use.run(100)
        lab.check("the server between has not ended", process.poll() is None)
        process.terminate()
        process.wait(20)
    with connected(server.uri()) as handle:
        Exercise([handle], model, 150).run(10)
    stop(lab, server, deaths=len(commands) * KILLS)
    store.lacuna("check", "--data")


def start(lab: Lab, path: Path, *command: str) -> subprocess.Popen:
    """Starts a server, and waits until its socket is there."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=(lab.folder / "between.log").open("ab"))
    lab.endings.append(process.kill)
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        if path.exists():
            return process
        time.sleep(0.05)
    raise Failed(f"{command[0]} does not serve: {(lab.folder / 'between.log').read_text(encoding='utf-8')}")


def kill(server: Server) -> None:
    for _ in range(KILLS):
        server.kill()
        time.sleep(0.3)
