"""Commands on this machine."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass


class Failed(Exception):
    """Something was not as it should be; the text says what."""


@dataclass(frozen=True)
class Result:
    """What a command that ended has left."""

    command: tuple[str, ...]
    status: int
    output: str
    errors: str

    @property
    def succeeded(self) -> bool:
        return self.status == 0

    def described(self) -> str:
        """The command, its status and what it printed."""
        text = f"$ {shlex.join(self.command)}\n{self.output}{self.errors}"
        return text if self.succeeded else f"{text.rstrip()}\n[status {self.status}]\n"


def run(*command: str, timeout: float = 60, check: bool = True, environment: dict[str, str] | None = None,
        stdin: bytes = b"") -> Result:
    """Runs a command to its end. Fails where it takes longer than `timeout` seconds, or ends with another status than 0."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"took longer than {timeout:g} s: {shlex.join(command)}") from error
    result = Result(command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if check and not result.succeeded:
        raise Failed(result.described())
    return result
