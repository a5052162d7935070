"""The head of an answer, status and headers: read whole and within a time limit, or refused.

``http.client`` takes the end of a connection for the end of the headers, so an answer that broke off there would look
like one without a body. Its timeout is for each byte, so a server could hold a thread for days. And of the interim
answers it skips only 100: any other, such as the 103 of a proxy that sends early hints, it takes for the final one.
Seen with Python 3.11.7; no upstream report found.
"""

import time
from http.client import HTTPResponse, IncompleteRead
from socket import socket
from typing import Any, Final, Protocol

_SWITCHING: Final = 101  #: a final answer, although its number is that of an interim one


class _File(Protocol):
    def read(self, size: int, /) -> bytes: ...


class WholeHeadResponse(HTTPResponse):
    """An answer whose head must arrive within twice the read timeout of its socket."""

    def __init__(self, sock: socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._timeout = sock.gettimeout()

    def begin(self) -> None:
        """Read the head. Raises TimeoutError, IncompleteRead and the errors of the base class."""
        file = self.fp
        ends_at = None if self._timeout is None else time.monotonic() + 2 * self._timeout
        self.fp = _Head(file, ends_at)  # type: ignore[assignment]  # all that begin() does with it is to read lines, or to close it
        try:
            super().begin()
            while self._is_interim():
                self.headers = self.msg = None  # type: ignore[assignment]  # as before the first head; else nothing is read
                super().begin()
        finally:
            self.fp = file

    def _is_interim(self) -> bool:
        """Whether the final answer is yet to come. Source: RFC 9110, 15.2."""
        return 100 <= self.status < 200 and self.status != _SWITCHING


class _Head:
    """Reads lines, within the time limit."""

    def __init__(self, file: _File, ends_at: float | None) -> None:
        self._file = file
        self._ends_at = ends_at
        self._has_begun = False

    def readline(self, limit: int) -> bytes:
        line = bytearray()
        while len(line) < limit and not line.endswith(b"\n"):
            if self._ends_at is not None and time.monotonic() > self._ends_at:
                raise TimeoutError("the headers of the answer did not end in time")
            byte = self._file.read(1)
            if not byte:
                if self._has_begun or line:
                    raise IncompleteRead(bytes(line))
                break  # an answer without a first byte has its own error
            line += byte
        self._has_begun = True
        return bytes(line)

    def close(self) -> None:
        """Nothing to close: the connection is closed by its owner."""
