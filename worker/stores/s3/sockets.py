"""Sockets that are judged by progress: a body that moves is never cut, one that hangs for the read timeout always is.

urllib3 sends a body under the timeout for connecting, and starts the one for reading while bytes still wait in the
kernel's buffer: a slow uplink would be taken for a dead one. Here the kernel ends a connection whose peer has taken
nothing for that long, and the wait for the answer begins when the last byte has been taken.
See https://github.com/urllib3/urllib3/issues/857, open as of urllib3 2.8.0.
"""

import fcntl
import select
import socket
import ssl
import struct
import termios
import time
from typing import Any, Final

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool

#: Linux. Elsewhere a write may take the read timeout for each piece, and that is all.
_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)
_COUNT: Final = struct.Struct("i")


def judge_by_progress(client: Any, read_timeout: float) -> None:
    """Have the client make its connections so. ``read_timeout``: seconds without a byte in either direction."""

    class Connection(_Judged, AWSHTTPConnection):  # type: ignore[misc]  # botocore has no types
        patience = read_timeout

    class SecureConnection(_Judged, AWSHTTPSConnection):  # type: ignore[misc]
        patience = read_timeout

    class Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = Connection

    class SecurePool(AWSHTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = SecureConnection

    # botocore has no setting for it.
    client._endpoint.http_session._pool_classes_by_scheme.update({"http": Pool, "https": SecurePool})


class _Judged:
    """What is changed of a connection."""

    patience: float
    sock: Any
    timeout: Any

    _connects = False

    def connect(self) -> None:
        self._connects = True  # a proxy's CONNECT is sent within: its answer, and TLS, have the timeout of connecting
        try:
            super().connect()  # type: ignore[misc]
        finally:
            self._connects = False
        if _USER_TIMEOUT is not None:
            self._outermost.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(self.patience * 1000))

    @property
    def _outermost(self) -> Any:
        """The kernel's socket: to a proxy that is reached by TLS, the one of TLS within TLS is none."""
        return getattr(self.sock, "socket", self.sock)

    def send(self, data: Any) -> Any:
        if self.sock is None:
            self.connect()
        if not self._connects:
            # The kernel's own timeout ends it: Python's would count from the beginning of a piece, moving or not.
            self.sock.settimeout(self.patience if _USER_TIMEOUT is None else None)
        return super().send(data)  # type: ignore[misc]

    def getresponse(self) -> Any:
        if self._queued():
            self._wait_until_taken()
        return super().getresponse()  # type: ignore[misc]

    def _wait_until_taken(self) -> None:
        """Until the last byte is taken, or an answer begins. Raises TimeoutError once nothing moves any more."""
        is_secure = isinstance(self._outermost, ssl.SSLSocket)
        closed = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
        has_news = False
        with select.epoll() as poll:
            poll.register(self.sock, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
            queued, moved_at = self._queued(), time.monotonic()
            while queued:
                for _, event in poll.poll(self.patience / 8):
                    has_news = True
                    # Of TLS, it may be its own session tickets: they come one round trip after the body has begun.
                    if not is_secure or event & closed:
                        return
                before, queued, now = queued, self._queued(), time.monotonic()
                if queued < before:
                    moved_at = now
                elif now - moved_at >= self.patience:
                    if has_news:
                        return  # an answer after all, or the tickets of a peer that hangs: reading tells
                    raise TimeoutError(f"the last {queued} bytes were not taken for {self.patience:g} s")

    def _queued(self) -> int:
        """Bytes that the peer's kernel has not taken yet."""
        if _USER_TIMEOUT is None or self.sock is None:
            return 0
        answer = fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(_COUNT.size))
        return int(_COUNT.unpack(answer)[0])
