"""The control socket: calls that a server answers, as docs/control.md has them."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from .failure import Failed


class Refused(Exception):
    """The server has answered with an error."""

    def __init__(self, method: str, error: dict[str, Any]):
        super().__init__(f"{method}: {error['message']}")
        self.code = error.get("data", {}).get("code", str(error["code"]))


class Gone(Exception):
    """The server has not answered, since it has ended."""


class Administration:
    """One connection to a control socket, for one thread."""

    def __init__(self, path: Path, seconds: float = 60):
        self._number = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(seconds)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise Gone(str(error)) from error
        self._lines = self._socket.makefile("rb")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method, and returns its result. Parameters that are None are left out."""
        self._number += 1
        given = {name: value for name, value in parameters.items() if value is not None}
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": given}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            while True:
                line = self._lines.readline()
                if not line:
                    raise Gone(f"{method}: the server has hung up")
                answer = json.loads(line)
                if answer.get("id") == self._number:
                    break
        except TimeoutError as error:
            raise Failed(f"the server has not answered {method} {given} in time") from error
        except OSError as error:
            raise Gone(f"{method}: {error}") from error
        if "error" in answer:
            raise Refused(method, answer["error"])
        return answer["result"]

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Administration:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
