"""A proxy in front of an S3 server that makes the network or the server fail, where and as often as a test says.

It knows which S3 operation a request is, so a fault can be aimed at one call. It runs in threads of the caller's own
process: faults are changed between two calls, and what they hit is asked right after, without a control protocol. What
it costs is the caller's GIL; it streams pieces and computes nothing, and workers under test are other processes.
"""

import http.client
import http.server
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

from dev.proxies.s3_fault_rules import HOP_BY_HOP, Call, Exchange, Fault, FaultRules, Kind, recognise
from dev.serving import served

__all__ = ["Call", "Exchange", "Fault", "FaultProxy", "Kind", "fault_proxy"]

STALL_SECONDS: Final = 3.0  #: longer than the read timeout of the client under test
PIECE: Final = 256 * 1024  #: bytes
UPSTREAM_SECONDS: Final = 120.0  #: for one answer of the server behind
_STATUSES: Final[dict[Kind, tuple[int, str]]] = {
    "internal_error": (500, "InternalError"),
    "slow_down": (503, "SlowDown"),
    "access_denied": (403, "AccessDenied"),
    "error_in_200": (200, "InternalError"),
}


class FaultProxy(FaultRules):
    """A running proxy."""

    def __init__(self, upstream: str, *, stall_seconds: float = STALL_SECONDS) -> None:
        """Listens at once; :func:`fault_proxy` also serves."""
        super().__init__()
        url = urlsplit(upstream)
        self.upstream = url.hostname or "127.0.0.1", url.port or 80
        self.stall_seconds = stall_seconds
        self.ending = threading.Event()
        self.server = _Server(self)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def fault_proxy(upstream: str, *, stall_seconds: float = STALL_SECONDS) -> Iterator[FaultProxy]:
    """A proxy in front of ``upstream`` that injects nothing yet."""
    proxy = FaultProxy(upstream, stall_seconds=stall_seconds)
    with served(proxy.server, before_close=proxy.server.hang_up):
        try:
            yield proxy
        finally:
            proxy.ending.set()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self._connections = set[Any]()
        super().__init__(("127.0.0.1", 0), FaultHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Wake the threads that wait for a client's next request."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class FaultHandler(http.server.BaseHTTPRequestHandler):
    """One client's connection."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """All requests of the connection."""
        with suppress(ConnectionError):  # a client that has run out of patience need not say so politely
            super().handle()

    def serve(self) -> None:
        """One request."""
        call = recognise(self.command, self.path, copies="x-amz-copy-source" in self.headers)
        self._exchange = self.server.proxy.begin(call, int(self.headers.get("Content-Length", 0)))
        fault = self._exchange.fault
        try:
            if fault is None or fault.kind == "cut_answer":
                self._pass_on(cut=fault is not None)
            elif fault.effect or fault.kind in _STATUSES:
                self._fail_after(fault, call)
            else:
                self._fail_before(fault)
        except (OSError, http.client.HTTPException):  # one of the two sides is gone
            self.close_connection = True
        finally:
            self.server.proxy.end()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve

    def _fail_before(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.kind == "cut_request":
            # The server gets none of it: S3 drops a body that is cut off, which not every stand-in does.
            self.rfile.read(self._exchange.sent // 2)
        if fault.kind in ("stall", "late"):
            self.server.proxy.ending.wait(self.server.proxy.stall_seconds)
        if fault.kind == "late":
            self._swallow(self._body())

    def _fail_after(self, fault: Fault, call: Call) -> None:
        body = list(self._body()) if call.operation == "delete_batch" else self._body()
        if fault.effect:
            self._swallow(body)
        else:
            for _ in body:
                pass
        if fault.kind not in _STATUSES:
            if fault.kind == "stall":
                self.server.proxy.ending.wait(self.server.proxy.stall_seconds)
            self.close_connection = True
            return
        status, code = _STATUSES[fault.kind]
        answer = f"<Error><Code>{code}</Code><Message>injected</Message><RequestId>fault</RequestId></Error>"
        if status == 200 and call.operation == "delete_batch":
            keys = re.findall(rb"<Key>.*?</Key>", b"".join(body))
            each = "".join(f"<Error>{key.decode()}<Code>{code}</Code></Error>" for key in keys)
            answer = f"<DeleteResult>{each}</DeleteResult>"
        content = b"<?xml version='1.0' encoding='UTF-8'?>" + answer.encode()
        self._answer_head(status, code, [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))])
        if self.command != "HEAD":
            self._answer_piece(content)

    def _pass_on(self, *, cut: bool) -> None:
        with self._forwarded(self._body()) as answer:
            size = answer.length or 0
            if cut and (size < 2 or self.command == "HEAD"):
                self.close_connection = True  # there is no middle
                return
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
            if chunked := answer.length is None and self.command != "HEAD":
                headers.append(("Transfer-Encoding", "chunked"))
            self._answer_head(answer.status, answer.reason, headers)
            left = size // 2 if cut else None
            while piece := answer.read(PIECE if left is None else min(PIECE, left)):
                self._answer_piece(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                left = None if left is None else left - len(piece)
            if answer.length and not cut:
                raise ConnectionError("the server is gone")
            if chunked:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = self.close_connection or cut

    def _swallow(self, body: Iterable[bytes]) -> None:
        with self._forwarded(body) as answer:
            while answer.read(PIECE):
                pass

    def _body(self) -> Iterator[bytes]:
        left = self._exchange.sent
        while left:
            piece = self.rfile.read(min(PIECE, left))
            if not piece:
                raise ConnectionError("the client is gone")
            left -= len(piece)
            yield piece

    @contextmanager
    def _forwarded(self, body: Iterable[bytes]) -> Iterator[http.client.HTTPResponse]:
        """The server's answer, through a connection of its own; the Host header stays, for signatures cover it."""
        connection = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=UPSTREAM_SECONDS)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Connection", "close")
            connection.endheaders()
            refused = False
            for piece in body:
                try:
                    if not refused:
                        connection.send(piece)
                except ConnectionError:  # it need not read the whole of what it refuses
                    refused = True
            with connection.getresponse() as answer:
                yield answer
        finally:
            connection.close()

    def _answer_head(self, status: int, reason: str, headers: Iterable[tuple[str, str]]) -> None:
        self._exchange.status = status
        self.send_response_only(status, reason)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _answer_piece(self, piece: bytes) -> None:
        self.wfile.write(piece)
        self._exchange.answered += len(piece)

    def log_message(self, format: str, *args: Any) -> None:
        """The exchanges are the log."""
