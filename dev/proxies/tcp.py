"""A wire in front of a TCP port or a unix socket, to be frozen, cut, delayed or refused while others talk through it.

It knows no protocol: it carries bytes, and fails where a test says. It runs in one thread of the
caller's process; when a call returns, what it asked for holds.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from dev.process import free_port
from dev.proxies.cut_points import Trap, Watch

__all__ = ["Upstream", "Wire", "laid", "wire"]

Upstream = tuple[str, int] | Path
T = TypeVar("T")
AnyWire = TypeVar("AnyWire", bound="Wire")

PIECE: Final = 256 * 1024  #: bytes
BACKLOG: Final = 128
#: Linger for 0 seconds: closing sends RST.
RESET: Final = struct.pack("ii", 1, 0)


@dataclass(eq=False, slots=True)
class WireConnection:
    client: asyncio.StreamWriter
    passes: asyncio.Event
    server: asyncio.StreamWriter | None = None
    watch: Watch = field(default_factory=Watch)
    is_last_answer_lost: bool = False

    def reset(self) -> None:
        self.passes.set()
        for side in (self.client, self.server):
            if side is not None and not side.transport.is_closing():
                with suppress(OSError):
                    side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                side.transport.abort()


@dataclass(eq=False)
class Wire:
    """A running wire. Its methods may be called from any thread."""

    upstream: Upstream
    port: int = field(default_factory=free_port)
    to_server: int = 0  #: bytes that went through
    to_client: int = 0
    cuts: int = 0  #: traps that have gone off
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _listener: asyncio.Server | None = None
    _connections: set[WireConnection] = field(default_factory=set)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _is_frozen: bool = False
    _trap: Trap | None = None
    _delays: dict[str, float] = field(default_factory=dict)

    # --- what can be done to it -------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def freeze(self) -> None:
        """Let nothing pass any more: connections stay open, new ones are accepted, and all fall silent."""
        self._do(lambda: self._freeze(new_ones=True))

    def freeze_existing(self) -> None:
        """Let nothing pass on the connections of now, which stay open; new ones work."""
        self._do(lambda: self._freeze(new_ones=False))

    def thaw(self) -> None:
        """Let everything pass again, what was sent meanwhile included."""
        self._do(self._thaw)

    def cut(self) -> None:
        """Reset every connection of now."""
        self._do(self._reset)

    def refuse(self) -> None:
        """Refuse new connections, as if nothing listened. Safe to repeat."""
        self._do(self._stop_listening)

    def accept(self) -> None:
        """Take new connections again, on the same port. Safe to repeat."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def cut_at(self, token: bytes, *, before: bool, nth: int = 1, following: bytes = b"") -> None:
        """Cut one connection, once, where the client sends ``token``; :attr:`cuts` says that it has happened.

        Args:
            token: Bytes of one request.
            before: Cut before the server gets to see it; else after the server's answer, of which the client gets
                nothing.
            nth: At which of them, counted over all connections.
            following: Only tokens count before which this went by on the same connection; each needs one of its own.
        """
        self._trap = Trap(token, before, nth, following)

    def delay(self, *, to_server: float = 0, to_client: float = 0) -> None:
        """Hold back each piece in a direction for so many seconds."""
        self._do(lambda: self._delays.update(to_server=to_server, to_client=to_client))

    # --- how it is done, in the loop's thread -----------------------------------------------------------------------

    def _do(self, change: Callable[[], T]) -> T:
        async def changed() -> T:
            return change()

        return asyncio.run_coroutine_threadsafe(changed(), self._loop).result(10)

    def _freeze(self, *, new_ones: bool) -> None:
        self._is_frozen = new_ones
        for connection in self._connections:
            connection.passes.clear()

    def _thaw(self) -> None:
        self._is_frozen = False
        for connection in self._connections:
            connection.passes.set()

    def _reset(self) -> None:
        for connection in list(self._connections):
            connection.reset()

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=BACKLOG)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = WireConnection(client, asyncio.Event())
        if not self._is_frozen:
            connection.passes.set()
        self._connections.add(connection)
        try:
            await connection.passes.wait()
            answers, connection.server = await self._connect()
            ends = (self._carry_requests(connection, reader), self._carry_answers(connection, answers))
            both = [asyncio.ensure_future(end) for end in ends]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in both:
                    end.cancel()
                failed = any(isinstance(e, OSError) for e in await asyncio.gather(*both, return_exceptions=True))
            if failed:
                connection.reset()
        except OSError:  # nothing listens upstream
            connection.reset()
        except asyncio.CancelledError:  # the wire is taken away; asyncio's streams would report it as an error
            pass
        finally:
            self._connections.discard(connection)
            self._tasks.discard(task)
            for side in (client, connection.server):
                if side is not None:
                    side.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.upstream, Path):
            return await asyncio.open_unix_connection(self.upstream)
        return await asyncio.open_connection(*self.upstream)

    async def _carry_requests(self, connection: WireConnection, reader: asyncio.StreamReader) -> None:
        assert connection.server is not None
        while piece := await reader.read(PIECE):
            await self._may_pass(connection, "to_server")
            if (trap := self._trap) is not None and connection.watch.springs(trap, piece):
                self._trap, self.cuts = None, self.cuts + 1
                if trap.before:
                    connection.reset()
                    return
                connection.is_last_answer_lost = True
            self.to_server += len(piece)  # counted first: the other side may answer, and be asked, before we go on
            connection.server.write(piece)
            await connection.server.drain()
        await connection.passes.wait()

    async def _carry_answers(self, connection: WireConnection, reader: asyncio.StreamReader) -> None:
        while piece := await reader.read(PIECE):
            await self._may_pass(connection, "to_client")
            if connection.is_last_answer_lost:
                connection.reset()
                return
            self.to_client += len(piece)
            connection.client.write(piece)
            await connection.client.drain()
        await connection.passes.wait()

    async def _may_pass(self, connection: WireConnection, direction: str) -> None:
        if seconds := self._delays.get(direction, 0.0):
            await asyncio.sleep(seconds)
        await connection.passes.wait()

    async def _end(self) -> None:
        self._stop_listening()
        self._reset()
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # the loop closes the sockets


@contextmanager
def wire(upstream: Upstream) -> Iterator[Wire]:
    """A wire from a free port of 127.0.0.1 to ``upstream``: host and port, or the path of a unix socket."""
    with laid(Wire(upstream)) as running:
        yield running


@contextmanager
def laid(running: AnyWire) -> Iterator[AnyWire]:
    """The wire, which runs within the block."""
    thread = threading.Thread(target=running._loop.run_forever, name="wire")
    thread.start()
    try:
        running.accept()
        yield running
    finally:
        asyncio.run_coroutine_threadsafe(running._end(), running._loop).result(10)
        running._loop.call_soon_threadsafe(running._loop.stop)
        thread.join()
        running._loop.close()
