"""A store, and the nbdkit that serves it under the library of delays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import nbd

from . import places
from .administration import Administration
from .failure import Failed

#: A server that neither serves nor ends by then never will.
START_SECONDS = 60
STOP_SECONDS = 60


class Server:
    """nbdkit on the store of a folder, which only this user can enter. It is started with `start`, and ended with the test in
    any case, by the number of its process."""

    def __init__(self, folder: Path, *parameters: str, environment: dict[str, str] | None = None):
        self.folder = folder
        self.store = folder / "store.lacuna"
        self.socket = folder / "nbd.sock"
        self.log = folder / "server.log"
        self.parameters = parameters
        self.environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, is_delayed: bool = True) -> None:
        """Starts it and waits until it serves. To be called by a thread that stays: nbdkit ends with the one that started it."""
        pid_file = self.folder / "pid"
        for path in (self.socket, pid_file):
            path.unlink(missing_ok=True)
        environment = dict(os.environ)
        if is_delayed:
            environment |= {"LD_PRELOAD": str(places.library()), **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["nbdkit", "--foreground", "--exit-with-parent", "--threads", "16", "--unix", str(self.socket), "--pidfile",
                 str(pid_file), str(places.plugin()), str(self.store), *self.parameters],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while not (pid_file.exists() and pid_file.stat().st_size):
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise Failed(f"nbdkit does not serve the store:\n{self.log_tail()}")
            time.sleep(0.005)

    @property
    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def administration(self) -> Administration:
        return Administration(self.folder / "store.lacuna.sock")

    def connect(self, export: str, *, with_map: bool = False) -> nbd.NBD:
        handle = nbd.NBD()
        handle.set_export_name(export)
        if with_map:
            handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        handle.connect_unix(str(self.socket))
        return handle

    def lacuna(self, verb: str, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs `lacuna VERB STORE ARGUMENTS`."""
        command = [str(places.program()), verb, str(self.store), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False,
                                  stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"lacuna {verb} {' '.join(arguments)} took longer than {seconds:g} s") from error

    def must(self, verb: str, *arguments: str, seconds: float = 60) -> str:
        """The same, which must succeed. Returns what it prints."""
        result = self.lacuna(verb, *arguments, seconds=seconds)
        if result.returncode:
            raise Failed(f"lacuna {verb} {' '.join(arguments)}: status {result.returncode}\n{result.stderr}")
        return result.stdout

    def size(self, volume: str) -> int:
        return json.loads(self.must("info", volume, "--json"))["size"]

    def kill(self) -> None:
        """Ends it at once, as kill -9 does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """Ends it as a user would; it must end well."""
        if self.process is None:
            raise Failed("there is no server to stop")
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise Failed(f"the server has not ended {STOP_SECONDS} s after SIGTERM\n{self.log_tail()}") from error
        if status:
            raise Failed(f"the server has ended with status {status}\n{self.log_tail()}")

    def check(self) -> None:
        """Checks the store, which nobody serves: all of it must be whole."""
        result = self.lacuna("check", "--data", "--json", seconds=120)
        try:
            findings = lines(json.loads(result.stdout)["findings"])
        except (ValueError, KeyError) as error:
            raise Failed(f"lacuna check --data: status {result.returncode}\n{result.stdout}{result.stderr}") from error
        if findings:
            raise Failed("\n".join(["lacuna check --data has findings:", *findings, self.log_tail()]))

    def log_tail(self, count: int = 12) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"server: {line}" for line in lines[-count:])


def lines(findings: list[dict[str, str]]) -> list[str]:
    """The findings of a check, one a line."""
    return [f"{each['path']}: {each['text']}" for each in findings]
