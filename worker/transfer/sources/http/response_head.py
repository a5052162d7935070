"""The head of an answer, status and headers: it comes whole and within bounded time, or there is no answer.

Python's own reader takes the end of a connection for the end of the headers: an answer that broke off there would pass
for one without a body. And its timeout is for each byte, so that a server could hold a thread for days.
Seen with Python 3.11.7; no upstream report found.
"""

import time
from http.client import HTTPResponse, IncompleteRead
from socket import socket
from typing import Any, Protocol


class _File(Protocol):
    def read(self, size: int, /) -> bytes: ...


class WholeHeadResponse(HTTPResponse):
    """An answer whose head must be there within twice the read timeout of its socket."""

    def __init__(self, sock: socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._timeout = sock.gettimeout()

    def begin(self) -> None:
        """Read the head. Raises TimeoutError, IncompleteRead and what the base class does."""
        file = self.fp
        ends_at = None if self._timeout is None else time.monotonic() + 2 * self._timeout
        self.fp = _Head(file, ends_at)  # type: ignore[assignment]  # lines are all that is read of it
        try:
            super().begin()
        finally:
            self.fp = file


class _Head:
    """Lines, up to the empty one."""

    def __init__(self, file: _File, ends_at: float | None) -> None:
        self._file = file
        self._ends_at = ends_at
        self._has_begun = False

    def readline(self, limit: int) -> bytes:
        line = bytearray()
        while len(line) < limit and not line.endswith(b"\n"):
            if self._ends_at is not None and time.monotonic() > self._ends_at:
                raise TimeoutError("the headers of the answer do not come to their end")
            byte = self._file.read(1)
            if not byte:
                if self._has_begun or line:
                    raise IncompleteRead(bytes(line))
                break  # no answer at all has its own error
            line += byte
        self._has_begun = True
        return bytes(line)

    def close(self) -> None:
        """Nothing to close: the connection is closed by its owner."""
