"""One connection of a client: request heads and bodies in, answers out. Bodies are dropped as they arrive."""

import hashlib
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, unquote_plus

BUFFER: Final = 256 * 1024
HASHED: Final = 1024 * 1024  #: bytes of the largest body whose MD5 is computed
KEPT: Final = 4 * 1024 * 1024  #: bytes of the largest body that is kept for the caller: a list of parts or keys


class ClosedError(Exception):
    """The client has closed the connection."""


@dataclass(slots=True)
class ServerPace:
    """How slow the server pretends to be; shared by all connections, and changed while they live."""

    delay: float = 0.0  #: seconds before each answer
    rate: float = 0.0  #: bytes per second that a connection takes or gives; 0: as fast as it can


@dataclass(slots=True)
class RequestHead:
    """Method, path, query and headers, whose names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(slots=True)
class Received:
    """What is known of a body after it has been dropped."""

    size: int
    md5: str  #: "" for a body above ``HASHED``
    content: bytes  #: "" unless it was asked for
    trailers: Mapping[str, str]


class DiscardingSocket:
    """Reads requests from a socket and writes answers to it, at the pace of the server."""

    def __init__(self, connection: socket.socket, pace: ServerPace) -> None:
        self._socket = connection
        self._pace = pace
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._is_secure = isinstance(connection, ssl.SSLSocket)
        self.received = self.sent = 0  #: bytes of bodies

    # --- requests ----------------------------------------------------------------------------------------------------

    def head(self) -> RequestHead:
        """The head of the next request. Raises ClosedError."""
        while (end := self._buffer.find(b"\r\n\r\n", self._start, self._end)) < 0:
            self._fill()
        lines = bytes(self._view[self._start : end]).decode("latin-1").split("\r\n")
        self._start = end + 4
        method, target, _ = lines[0].split(" ", 2)
        path, _, query = target.partition("?")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return RequestHead(method, unquote(path) if "%" in path else path, _parsed(query), headers)

    def body(self, headers: Mapping[str, str], *, keep: bool = False) -> Received:
        """Take the body of the request. ``keep``: return its bytes. Raises ClosedError."""
        framed = headers.get("x-amz-decoded-content-length") is not None
        is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        if not framed and not is_chunked:
            size = int(headers.get("content-length") or 0)
            content, digest = self._take(size, keep=keep)
            return Received(size, digest, content, {})
        return self._chunks(headers, framed=framed, is_chunked=is_chunked)

    def _chunks(self, headers: Mapping[str, str], *, framed: bool, is_chunked: bool) -> Received:
        """A body in chunks of HTTP, of ``aws-chunked``, or of one within the other, whose ends are then the same."""
        size, content, digest = 0, [], hashlib.md5(usedforsecurity=False)
        source = _Unchunked(self) if is_chunked and framed else self
        while length := int(source.line().partition(b";")[0], 16):
            piece = source.exactly(length)
            size += length
            if size <= HASHED:
                digest.update(piece)
            if size <= KEPT:
                content.append(piece)
            source.line()
        trailers = {}
        while line := source.line():
            name, _, value = line.decode("latin-1").partition(":")
            trailers[name.lower()] = value.strip()
        if isinstance(source, _Unchunked):
            source.finish()
        md5 = digest.hexdigest() if size <= HASHED else ""
        return Received(size, md5, b"".join(content) if size <= KEPT else b"", trailers)

    def line(self) -> bytes:
        """The bytes up to the next end of a line, which is dropped."""
        while (end := self._buffer.find(b"\r\n", self._start, self._end)) < 0:
            self._fill()
        line = bytes(self._view[self._start : end])
        self._start = end + 2
        return line

    def exactly(self, size: int) -> bytes:
        """So many bytes. They are held in memory, so they must be a chunk and not a large body."""
        return self._take(size, keep=True)[0]

    def _take(self, size: int, *, keep: bool) -> tuple[bytes, str]:
        started, left, pieces = time.monotonic(), size, []
        digest = hashlib.md5(usedforsecurity=False) if size <= HASHED else None
        needs_bytes = keep or digest is not None
        while left:
            if self._start == self._end:
                if needs_bytes or self._is_secure:
                    self._fill()
                else:  # the kernel drops what it would copy. Source: tcp(7), MSG_TRUNC
                    got = self._socket.recv_into(self._view, min(left, BUFFER), socket.MSG_TRUNC)
                    if not got:
                        raise ClosedError
                    left -= got
                    self._keep_pace(size - left, started)
                    continue
            taken = min(left, self._end - self._start)
            if needs_bytes:
                piece = bytes(self._view[self._start : self._start + taken])
                if digest:
                    digest.update(piece)
                if keep:
                    pieces.append(piece)
            self._start += taken
            left -= taken
            self._keep_pace(size - left, started)
        self.received += size
        return b"".join(pieces), digest.hexdigest() if digest else ""

    def _fill(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == BUFFER:
            rest = self._view[self._start : self._end].tobytes()
            if len(rest) == BUFFER:
                raise ClosedError  # a head or a line of that length is no request
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        got = self._socket.recv_into(self._view[self._end :])
        if not got:
            raise ClosedError
        self._end += got

    # --- answers -----------------------------------------------------------------------------------------------------

    def answer(self, head: bytes, content: bytes = b"") -> None:
        """Send an answer, after the delay."""
        if self._pace.delay:
            time.sleep(self._pace.delay)
        self._socket.sendall(head + content if content else head)

    def send_range(self, pattern: memoryview, offset: int, size: int) -> None:
        """Send bytes of a content that repeats the pattern, which begins at offset 0."""
        started, left, length = time.monotonic(), size, len(pattern)
        while left:
            begin = offset % length
            piece = pattern[begin : begin + min(left, length - begin)]
            self._socket.sendall(piece)
            offset += len(piece)
            left -= len(piece)
            self._keep_pace(size - left, started)
        self.sent += size

    def _keep_pace(self, done: int, started: float) -> None:
        if self._pace.rate:
            ahead = done / self._pace.rate - (time.monotonic() - started)
            if ahead > 0:
                time.sleep(ahead)


class _Unchunked:
    """The inner bytes of a body in HTTP's chunks."""

    def __init__(self, outer: DiscardingSocket) -> None:
        self._outer = outer
        self._held = bytearray()

    def line(self) -> bytes:
        while (end := self._held.find(b"\r\n")) < 0:
            self._more()
        line = bytes(self._held[:end])
        del self._held[: end + 2]
        return line

    def exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            self._more()
        piece = bytes(self._held[:size])
        del self._held[:size]
        return piece

    def finish(self) -> None:
        """Take the last chunk, which is empty."""
        while not self._is_last():
            continue

    def _more(self) -> None:
        if self._is_last():
            raise ClosedError

    def _is_last(self) -> bool:
        length = int(self._outer.line().partition(b";")[0], 16)
        if length:
            self._held += self._outer.exactly(length)
        self._outer.line()
        return not length


def _parsed(query: str) -> dict[str, str]:
    if not query:
        return {}
    pairs = (part.partition("=") for part in query.split("&") if part)
    return {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}
