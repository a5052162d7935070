"""The server: one thread for each connection. They wait in the kernel nearly all the time."""

import os
import socket
import ssl
import threading
from contextlib import suppress
from email.utils import formatdate
from typing import Final

from bench.sink.blob_table import BlobTables
from bench.sink.controls import PREFIX, Controls
from bench.sink.discarding_socket import ClosedError, DiscardingSocket, Received, RequestHead, ServerPace
from bench.sink.generated import block
from bench.sink.request_names import name_of
from bench.sink.s3_answers import Answer
from bench.sink.s3_verbs import S3Verbs

BACKLOG: Final = 512
STATUS: Final = {200: "OK", 204: "No Content", 206: "Partial Content", 404: "Not Found", 412: "Precondition Failed"}
#: Their bodies are documents that must be read.
WITH_DOCUMENT: Final = frozenset({"CompleteMultipartUpload", "DeleteObjects"})
NOTHING: Final = Received(0, "", b"", {})


class SinkServer:
    """Listens, and answers until the process ends."""

    def __init__(self) -> None:
        self._tables = BlobTables()
        self._pace = ServerPace()
        self._verbs = S3Verbs(self._tables)
        self._controls = Controls(self._tables, self._pace)

    def listen(self, port: int, context: ssl.SSLContext | None = None) -> None:
        """Take connections at a port of 127.0.0.1 for ever. ``context``: of TLS."""
        listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._serve, args=(connection, context), daemon=True).start()

    def _serve(self, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ClosedError, OSError), connection:
            secure = context.wrap_socket(connection, server_side=True) if context else connection
            with secure:
                wire = DiscardingSocket(secure, self._pace)
                while True:
                    head = wire.head()
                    self._answer(wire, head)
                    if head.headers.get("connection", "").lower() == "close":
                        return

    def _answer(self, wire: DiscardingSocket, head: RequestHead) -> None:
        if head.path.startswith(PREFIX):
            answer = self._controls.answer(head)
        else:
            bucket, _, key = head.path.lstrip("/").partition("/")
            name = name_of(head, bucket, key)
            has_body = head.method in ("PUT", "POST")
            received = wire.body(head.headers, keep=name in WITH_DOCUMENT) if has_body else NOTHING
            answer = self._verbs.answer(name, bucket, key, head, received)
        size = len(answer.content) if answer.size is None else answer.size
        wire.answer(_written(answer, size), b"" if head.method == "HEAD" else answer.content)
        if answer.sends_from is not None:
            wire.send_range(block(), answer.sends_from, size)
        with self._tables.lock:
            self._tables.received += wire.received
            self._tables.sent += wire.sent
        wire.received = wire.sent = 0


def _written(answer: Answer, size: int) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {STATUS.get(answer.status, 'Status')}",
        f"Date: {formatdate(usegmt=True)}",
        f"x-amz-request-id: {os.urandom(8).hex()}",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    if answer.status != 204:
        lines.append(f"Content-Length: {size}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
