"""The bytes that go into a store and come out of it."""

from collections.abc import Iterator
from typing import Protocol

from worker.units import MIB


class Body(Protocol):
    """The bytes of one put or part: a seekable binary file whose reads may return views of a reused buffer.

    ``read(n)`` may return a memoryview that is only valid until the next call. ``__len__`` is the size in bytes.
    """

    def read(self, size: int = -1, /) -> bytes | memoryview:
        """Up to ``size`` bytes."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move; a store rewinds before it sends a request again."""
        ...

    def tell(self) -> int:
        """The position."""
        ...

    def __len__(self) -> int: ...


class Reader(Protocol):
    """The bytes of one get. Reading past the end gives ``b""``; a connection that breaks off raises StoreError."""

    etag: str  #: of the blob that is read

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes."""
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


def pieces_of(body: Body | bytes) -> Iterator[bytes | memoryview]:
    """A body from its beginning, at most a MiB at a time and at most one byte more than it says it has."""
    if isinstance(body, bytes):
        yield body
        return
    body.seek(0)
    left = len(body) + 1
    while left > 0 and (piece := body.read(min(MIB, left))):
        left -= len(piece)
        yield piece
