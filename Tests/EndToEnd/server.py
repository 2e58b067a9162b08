"""Stores, and the servers of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from .commands import Failed, Result, run
from .log import Log

ROOT = Path(__file__).resolve().parents[2]
LACUNA = ROOT / ".build/release/lacuna"
PLUGIN = ROOT / ".build/release/nbdkit-lacuna-plugin.so"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Store:
    """A store in a file, which may be served."""

    def __init__(self, path: Path, log: Log):
        self.path = path
        self.log = log

    def lacuna(self, verb: str, *arguments: str, timeout: float = 120, check: bool = True) -> Result:
        """Runs `lacuna VERB STORE ARGUMENTS`."""
        result = run(str(LACUNA), verb, str(self.path), *arguments, timeout=timeout, check=False)
        self.log.write(result.described())
        if check and not result.succeeded:
            raise Failed(result.described())
        return result

    def ask(self, verb: str, *arguments: str) -> Any:
        """The JSON that a verb prints."""
        return json.loads(self.lacuna(verb, *arguments, "--json").output)

    def mapped(self, volume: str) -> int:
        """The bytes that a volume maps now. A snapshot is a checkpoint, as of which the accounts are."""
        self.lacuna("snapshot", f"{volume}@measure")
        mapped = self.ask("info", volume)["mapped"]
        self.lacuna("delete", f"{volume}@measure", "--yes", "--wait")
        return mapped

    @property
    def allocated(self) -> int:
        """The bytes that the store's file takes on the host."""
        return self.path.stat().st_blocks * 512


class Server:
    """`scripts/serve` on a store: nbdkit, which is started again when it is killed."""

    def __init__(self, store: Store, log: Log, port: int | None, socket_path: Path | None, arguments: tuple[str, ...]):
        self.store = store
        self.log = log
        self.port = port
        self.socket_path = socket_path
        #: For TLS: what a URI has before the host and behind the question mark, such as alice@ and tls-psk-file=PATH.
        self.credentials: tuple[str, str] | None = None
        self.lines: list[str] = []
        where = ["--port", str(port)] if port else ["--socket", str(socket_path)]
        if port and not any(argument in ("--tls", "--tls=require") for argument in arguments):
            where.append("--anyone")
        self.process = subprocess.Popen(
            [str(ROOT / "scripts/serve"), "--no-build", *where, str(store.path), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        threading.Thread(target=self.relay, daemon=True).start()

    def wait_until_it_serves(self) -> None:
        if not self.wait_until(lambda: any("Serving" in line for line in self.lines), 30):
            raise Failed("the server does not serve:\n" + "".join(self.lines))

    def relay(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            text = line.decode(errors="replace")
            self.log.write(f"server: {text}")
            self.lines.append(text)

    def wait_until(self, condition, timeout: float) -> bool:
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end or self.process.poll() is not None:
                return bool(condition())
            time.sleep(0.01)
        return True

    def uri(self, export: str = "") -> str:
        if self.credentials:
            return f"nbds://{self.credentials[0]}127.0.0.1:{self.port}/{export}?{self.credentials[1]}"
        if self.port:
            return f"nbd://127.0.0.1:{self.port}/{export}"
        return f"nbd+unix:///{export}?socket={self.socket_path}"

    @property
    def nbdkit(self) -> int | None:
        """The process of nbdkit; none while it is dead."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii").split()
        for child in children:
            try:
                if Path(f"/proc/{child}/comm").read_text(encoding="ascii").strip() == "nbdkit":
                    return int(child)
            except OSError:
                continue  # It has ended meanwhile.
        return None

    def kill(self) -> float:
        """Kills nbdkit, and waits until another one answers. Returns the seconds from death to answer."""
        victim = self.nbdkit
        if victim is None:
            raise Failed("there is no nbdkit to kill")
        self.log.write(f"[kill -9 {victim}]\n")
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        while self.nbdkit in (None, victim) or not self.answers():
            if time.monotonic() > began + 30 or self.process.poll() is not None:
                raise Failed("the server did not come back:\n" + "".join(self.lines[-10:]))
            time.sleep(0.01)
        seconds = time.monotonic() - began
        self.log.write(f"[back after {seconds:.3f} s]\n")
        return seconds

    def digest(self, export: str = "") -> str:
        """A digest of all bytes of an export, as this machine reads them."""
        return run("bash", "-euo", "pipefail", "-c", 'nbdcopy "$1" - | sha256sum', "-", self.uri(export), timeout=120).output

    def answers(self) -> bool:
        return run("nbdinfo", "--size", self.uri(), timeout=20, check=False).succeeded

    def descriptors(self) -> int:
        """How many descriptors nbdkit has open."""
        return len(os.listdir(f"/proc/{self.nbdkit}/fd"))

    def status(self, key: str) -> int:
        """A number of /proc/PID/status of nbdkit, for example VmRSS in KiB or Threads."""
        for line in Path(f"/proc/{self.nbdkit}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
        raise Failed(f"/proc has no {key}")

    def stop(self, timeout: float = 30) -> None:
        """Ends it as a user would, with SIGTERM. Fails where it does not end by itself once its clients have gone."""
        self.process.terminate()
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self.end_now()
            raise Failed(f"the server did not end within {timeout:g} s") from error
        if status != 0:
            raise Failed(f"the server ended with status {status}:\n" + "".join(self.lines[-10:]))

    def end_now(self) -> None:
        """Ends it and nbdkit, whether there are clients or not."""
        for _ in range(2):
            # The second SIGTERM kills nbdkit.
            self.process.terminate()
            time.sleep(0.05)
            if self.process.poll() is not None:
                return
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
