"""A PostgreSQL proxy that gives each transaction another server connection, as PgBouncer does in transaction mode.

Harsher than PgBouncer: the connections take turns, so two transactions in a row never share one. Knows trust
authentication and no COPY; refuses the startup parameters that PgBouncer refuses.
"""

import asyncio
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from dev.process import work_directory
from dev.proxies.tcp import Upstream

CONNECTIONS: Final = 4
SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102  #: Source: PostgreSQL, "Message Formats"
#: Source: PgBouncer, configuration, ignore_startup_parameters.
PARAMETERS: Final = {"user", "database", "client_encoding", "datestyle", "timezone", "application_name"}
Frame = tuple[bytes, bytes]  #: type and body


class TransactionPooler:
    """A running pooler, for one user and one database: those of its first client."""

    def __init__(self, upstream: Upstream, directory: Path) -> None:
        self.directory = directory  #: of its socket
        self.transactions = 0
        self._upstream = upstream
        self._idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._greeting = b""
        self._opening = asyncio.Lock()
        self._tasks = set["asyncio.Task[None]"]()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Serve one client to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(client)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            if await self._greet(reader, client):
                while await self._transaction(reader, client):
                    self.transactions += 1
        self._tasks.discard(task)
        client.close()

    async def _greet(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> bool:
        while True:
            (size,) = struct.unpack("!i", await reader.readexactly(4))
            body = await reader.readexactly(size - 4)
            (code,) = struct.unpack("!i", body[:4])
            if code not in (SSL_REQUEST, GSS_REQUEST):
                break
            client.write(b"N")
        words = [word.decode() for word in body[4:].split(b"\0") if word]
        unknown = [name for name in words[::2] if name.lower() not in PARAMETERS]
        if unknown or code == CANCEL_REQUEST:
            text = f"SFATAL\0C08P01\0Munsupported startup parameter: {', '.join(unknown)}\0\0".encode()
            client.write(_packed((b"E", text)))
            return False
        async with self._opening:
            if not self._greeting:
                for _ in range(CONNECTIONS):
                    await self._open(struct.pack("!i", size) + body)
        client.write(self._greeting)
        return True

    async def _open(self, startup: bytes) -> None:
        if isinstance(self._upstream, Path):
            reader, writer = await asyncio.open_unix_connection(self._upstream)
        else:
            reader, writer = await asyncio.open_connection(*self._upstream)
        self._writers.append(writer)
        writer.write(startup)
        greeting = b""
        while True:
            frame = await _frame(reader)
            if frame[0] == b"E":
                raise ConnectionError(frame[1].decode(errors="replace"))
            greeting += _packed(frame)
            if frame[0] == b"Z":
                break
        self._greeting = greeting
        self._idle.put_nowait((reader, writer))

    async def _transaction(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> bool:
        """Carry one transaction of the client; False if it has left."""
        frame = await _frame(reader)
        if frame[0] == b"X":
            return False
        answers, server = await self._idle.get()
        status = b"T"
        try:
            while True:
                server.write(_packed(frame))
                if frame[0] in b"QSF":
                    status = await _carry_answers(answers, client)
                    if status == b"I":
                        return True
                frame = await _frame(reader)
                if frame[0] == b"X":
                    return False
        finally:
            if status != b"I":
                server.write(_packed((b"Q", b"ROLLBACK\0")))
                while (await _frame(answers))[0] != b"Z":
                    pass
            self._idle.put_nowait((answers, server))

    async def end(self) -> None:
        """Close every connection."""
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0.01)  # the loop closes the sockets


async def _frame(reader: asyncio.StreamReader) -> Frame:
    kind = await reader.readexactly(1)
    (size,) = struct.unpack("!i", await reader.readexactly(4))
    return kind, await reader.readexactly(size - 4)


def _packed(frame: Frame) -> bytes:
    return frame[0] + struct.pack("!i", len(frame[1]) + 4) + frame[1]


async def _carry_answers(answers: asyncio.StreamReader, client: asyncio.StreamWriter) -> bytes:
    """Carry what the server says up to ReadyForQuery; return the state of the transaction."""
    while True:
        frame = await _frame(answers)
        client.write(_packed(frame))
        if frame[0] == b"Z":
            return frame[1]


@contextmanager
def transaction_pooler(upstream: Upstream) -> Iterator[TransactionPooler]:
    """A pooler to ``upstream``, which listens in a directory of its own: a port is open to every local account."""
    with work_directory("pooler") as directory:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="pooler")
        thread.start()

        async def start() -> tuple[TransactionPooler, asyncio.Server]:
            pooler = TransactionPooler(upstream, directory)
            return pooler, await asyncio.start_unix_server(pooler.serve, pooler.directory / ".s.PGSQL.5432")

        pooler, listener = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        try:
            yield pooler
        finally:
            loop.call_soon_threadsafe(listener.close)
            asyncio.run_coroutine_threadsafe(pooler.end(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
