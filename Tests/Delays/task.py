"""Work beside the test's own thread."""

from __future__ import annotations

import threading
from typing import Callable, Generic, TypeVar

from .failure import Failed

Result = TypeVar("Result")


class Task(Generic[Result]):
    """A call in a thread of its own. Its exception is the one of `result`."""

    def __init__(self, call: Callable[[], Result]):
        self._call = call
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # pylint: disable=broad-except # handed to whoever asks for the result
            self._error = error

    def has_ended(self, seconds: float = 0) -> bool:
        """Whether it has ended, or ends before so many seconds have passed."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self, seconds: float = 60) -> Result:
        """Waits for the end. Fails where there is none in time."""
        if not self.has_ended(seconds):
            raise Failed(f"a call has not come back in {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]
