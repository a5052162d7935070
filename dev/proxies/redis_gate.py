"""A wire to a Redis or Valkey that can answer commands with an error of its own, as a server in trouble does."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from dev.proxies.tcp import PIECE, Upstream, Wire, WireConnection, laid


class RedisGate(Wire):
    """A running gate. Its methods may be called from any thread."""

    error: str | None = None
    refused: int = 0  #: commands that got the error

    def refuse_commands(self, error: str) -> None:
        """Answer every command from now on with this error, whose first word is its code."""
        self._do(lambda: setattr(self, "error", error))

    def take_commands(self) -> None:
        """Let commands pass again."""
        self._do(lambda: setattr(self, "error", None))

    async def _carry_requests(self, connection: WireConnection, reader: asyncio.StreamReader) -> None:
        assert connection.server is not None
        unread = b""
        while piece := await reader.read(PIECE):
            await self._may_pass(connection, "to_server")
            count, unread = _commands(unread + piece)
            if self.error is None:
                connection.server.write(piece)
                await connection.server.drain()
            else:
                self.refused += count
                connection.client.write(f"-{self.error}\r\n".encode() * count)
                await connection.client.drain()


def _commands(text: bytes) -> tuple[int, bytes]:
    """How many whole commands the text begins with, and the rest. Source: Redis serialization protocol, arrays."""
    count = 0
    while text:
        head, found, rest = text.partition(b"\r\n")
        if not found:
            break
        for _ in range(int(head[1:])):
            size, found, rest = rest.partition(b"\r\n")
            if not found or len(rest) < int(size[1:]) + 2:
                return count, text
            rest = rest[int(size[1:]) + 2 :]
        count, text = count + 1, rest
    return count, text


@contextmanager
def redis_gate(upstream: Upstream) -> Iterator[RedisGate]:
    """A gate from a free port of 127.0.0.1 to ``upstream``."""
    with laid(RedisGate(upstream)) as running:
        yield running
