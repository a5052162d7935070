"""The bytes that go into a store and come out of it."""

from typing import Protocol


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
