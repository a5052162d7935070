"""A proxy in front of an S3 server that writes down what it is really sent, cut-off requests included.

Run as ``python -m dev.proxies.s3_recorder ADDRESS PORT UPSTREAM LOG DELAYS``: one JSON line in LOG for each request,
once it has ended.
It may also slow the server down: DELAYS says, as JSON, how many seconds more each operation takes.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO
from urllib.parse import parse_qs, urlsplit

from dev.process import LOOPBACK, Service, ServiceProcess, free_port, running
from dev.proxies.s3_fault_rules import recognise

PIECE = 256 * 1024  #: bytes


@dataclass(slots=True)
class RecordedRequest:
    """One request, as far as it came. Times are seconds since the epoch."""

    method: str
    path: str
    operation: str = ""  #: as S3 names it: "copy_part", "delete_batch", …
    part_number: int | None = None
    range: str = ""  #: that was asked for
    started_at: float = field(default_factory=time.time)
    ended_at: float = 0.0
    received: int = 0  #: bytes of body
    expected: int = 0  #: bytes of body that the header promised
    answered: int = 0  #: bytes of the answer's body
    status: int = 0  #: 0: no answer went out
    client: str = ""  #: the address that it came from

    @property
    def is_part(self) -> bool:
        """Whether it sends a part."""
        return self.method == "PUT" and self.part_number is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder(Service):
    """A running recorder."""

    endpoint: str
    log: Path

    def requests(self) -> list[RecordedRequest]:
        """What it has seen so far, in the order of their ends."""
        return [RecordedRequest(**json.loads(line)) for line in self.log.read_text().splitlines()]


@contextmanager
def recorder(
    upstream: str, directory: Path, *, delays: Mapping[str, float] | None = None, address: str = LOOPBACK
) -> Iterator[Recorder]:
    """A recorder in front of ``upstream``, which listens on the address and logs into the directory.

    Each request of an operation in ``delays`` takes so many seconds more: half of them before the server gets it,
    half after it has done its work, so that a client may die on either side of that.
    """
    port = free_port()
    log = directory / "requests.jsonl"
    log.touch()
    process = ServiceProcess(
        "recorder",
        [
            sys.executable,
            str(Path(__file__).resolve()),
            address,
            str(port),
            upstream,
            str(log),
            json.dumps(delays or {}),
        ],
        log=directory / "recorder.log",
        answers=lambda: True,
        port=port,
        environment={"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
    )
    with running(Recorder(processes=(process,), endpoint=f"http://{address}:{port}", log=log)) as service:
        yield service


class _Proxy:
    def __init__(self, host: str, port: int, log: TextIO, delays: Mapping[str, float]) -> None:
        self._upstream = host, port
        self._log = log
        self._delays = delays

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, with one of its own to the server."""
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.close()
            return
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    # It has ended an idle connection, which without a proxy the client would have seen by itself.
                    if server_reader.at_eof():
                        server_writer.close()
                        server_reader, server_writer = await asyncio.open_connection(*self._upstream)
                    await self._exchange(head, reader, writer, server_reader, server_writer)
        finally:
            server_writer.close()
            writer.close()

    async def _exchange(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        request = _described(method, target, head)
        request.client = writer.get_extra_info("peername")[0]
        pause = self._delays.get(request.operation, 0.0) / 2
        try:
            await asyncio.sleep(pause)
            server_writer.write(head)
            while request.received < request.expected:
                piece = await reader.read(min(PIECE, request.expected - request.received))
                if not piece:
                    raise ConnectionError
                request.received += len(piece)
                server_writer.write(piece)
                await server_writer.drain()
            answer = await server_reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(pause)
            writer.write(answer)
            if method != "HEAD":
                await _copy_body(answer, server_reader, writer, request)
            await writer.drain()
            request.status = int(answer.split(b" ", 2)[1])
        finally:
            request.ended_at = time.time()
            self._log.write(json.dumps(asdict(request)) + "\n")
            self._log.flush()


def _described(method: str, target: str, head: bytes) -> RecordedRequest:
    url = urlsplit(target)
    call = recognise(method, target, copies=_header(head, b"x-amz-copy-source") is not None)
    number = parse_qs(url.query).get("partNumber")
    return RecordedRequest(
        method,
        url.path,
        call.operation,
        int(number[0]) if number else None,
        (_header(head, b"range") or b"").decode(),
        expected=int(_header(head, b"content-length") or 0),
    )


async def _copy_body(
    head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: RecordedRequest
) -> None:
    if b"chunked" in (_header(head, b"transfer-encoding") or b""):
        size = -1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line, 16)
            writer.write(line + await reader.readexactly(size + 2))
            request.answered += size
        return
    left = int(_header(head, b"content-length") or 0)
    while left:
        piece = await reader.read(min(PIECE, left))
        if not piece:
            raise ConnectionError
        left -= len(piece)
        request.answered += len(piece)
        writer.write(piece)
        await writer.drain()


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None


async def main(address: str, port: int, upstream: str, log: Path, delays: Mapping[str, float]) -> None:
    """Serve until killed."""
    url = urlsplit(upstream)
    with log.open("a") as lines:
        proxy = _Proxy(url.hostname or "127.0.0.1", url.port or 80, lines, delays)
        server = await asyncio.start_server(proxy.serve, address, port)
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), json.loads(sys.argv[5])))
