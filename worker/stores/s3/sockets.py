"""Connections that time out only without progress: a request body may take any time as long as bytes move.

urllib3 sends a body under the connect timeout, and starts the read timeout while bytes still wait in the kernel's
buffer, so a slow uplink looks dead. Here the kernel ends a connection whose peer acknowledged nothing for the read
timeout, and the wait for the answer begins when the last byte has been acknowledged.
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

#: Linux only. Elsewhere each piece of a body may take the read timeout.
_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)
_COUNT: Final = struct.Struct("i")
#: Bytes that leave in one flight of packets, and so move at once or not at all: the read timeout may begin with them.
_FEW: Final = 10 * 1024  # less than the initial window of RFC 6928, ten segments


def time_out_without_progress(client: Any, read_timeout: float) -> None:
    """Make the client open such connections. ``read_timeout``: seconds without a byte in either direction."""

    class Connection(_ProgressTimeout, AWSHTTPConnection):  # type: ignore[misc]  # botocore has no types
        progress_timeout = read_timeout

    class SecureConnection(_ProgressTimeout, AWSHTTPSConnection):  # type: ignore[misc]
        progress_timeout = read_timeout

    class Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = Connection

    class SecurePool(AWSHTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = SecureConnection

    # botocore has no setting for connection classes; test_s3_sockets fails if this attribute moves.
    client._endpoint.http_session._pool_classes_by_scheme.update({"http": Pool, "https": SecurePool})


class _ProgressTimeout:
    """Mixed into botocore's connection classes."""

    progress_timeout: float
    sock: Any
    timeout: Any

    _is_connecting = False

    def connect(self) -> None:
        self._is_connecting = True  # a proxy's CONNECT and TLS happen in here, under the connect timeout
        try:
            super().connect()  # type: ignore[misc]
        finally:
            self._is_connecting = False
        if _USER_TIMEOUT is not None:
            self._outermost.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(self.progress_timeout * 1000))

    @property
    def _outermost(self) -> Any:
        """The kernel's socket: with TLS inside the TLS of a proxy, ``sock`` is only a wrapper."""
        return getattr(self.sock, "socket", self.sock)

    def send(self, data: Any) -> Any:
        if self.sock is None:
            self.connect()
        if not self._is_connecting:
            # The kernel's timeout ends a send that hangs; Python's would also end one that moves slowly.
            self.sock.settimeout(self.progress_timeout if _USER_TIMEOUT is None else None)
        return super().send(data)  # type: ignore[misc]

    def getresponse(self) -> Any:
        if self._queued() > _FEW:
            self._wait_until_acknowledged()
        return super().getresponse()  # type: ignore[misc]

    def _wait_until_acknowledged(self) -> None:
        """Block until the last byte is acknowledged or an answer begins. Raises TimeoutError without progress."""
        is_secure = isinstance(self._outermost, ssl.SSLSocket)
        closed = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
        has_event = False
        with select.epoll() as poll:
            poll.register(self.sock, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
            queued, moved_at = self._queued(), time.monotonic()
            while queued:
                for _, event in poll.poll(self.progress_timeout / 8):
                    has_event = True
                    # With TLS these may be session tickets, which arrive one round trip after the body has begun.
                    if not is_secure or event & closed:
                        return
                before, queued, now = queued, self._queued(), time.monotonic()
                if queued < before:
                    moved_at = now
                elif now - moved_at >= self.progress_timeout:
                    if has_event:
                        return  # an answer, or only the tickets of a hanging peer: the read timeout decides
                    raise TimeoutError(
                        f"the peer acknowledged none of the last {queued} bytes for {self.progress_timeout:g} s"
                    )

    def _queued(self) -> int:
        """Bytes that the peer has not acknowledged yet."""
        if _USER_TIMEOUT is None or self.sock is None:
            return 0
        answer = fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(_COUNT.size))
        return int(_COUNT.unpack(answer)[0])
