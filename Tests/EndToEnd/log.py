"""The log of one scenario."""

from __future__ import annotations

import threading
import time
from pathlib import Path


class Log:
    """A file that lines with the time are added to, by any thread."""

    def __init__(self, path: Path):
        self.path = path
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.file = path.open("w", encoding="utf-8", errors="replace")

    def write(self, text: str) -> None:
        with self.lock:
            stamp = f"{time.monotonic() - self.began:8.2f}  "
            self.file.writelines(f"{stamp}{line}\n" for line in text.splitlines())
            self.file.flush()

    def tail(self, count: int) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines()[-count:]
