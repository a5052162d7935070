"""Sources: bytes that can be read again at any offset, by several threads, with a check for changes."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from worker.errors import ArgumentTypeError, SourceUnavailableError
from worker.transfer.sources.patience import SourceWatch, watched
from worker.units import KIB


@runtime_checkable
class Source(Protocol):
    """Bytes that a transfer reads."""

    url: str
    size: int  #: bytes

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values; others once the bytes may be others."""
        ...

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from ``offset``. Thread-safe. Raises SourceChangedError if the source is too short."""
        ...

    def check(self) -> None:
        """Raise SourceChangedError if the bytes are not those of the fingerprint.

        Where they only may be others, ``fingerprint`` is another one afterwards, and the caller compares the bytes.
        """
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


class MemorySource:
    """Bytes in memory."""

    def __init__(
        self, data: bytes | memoryview, *, url: str = "memory", fingerprint: Mapping[str, Any] | None = None
    ) -> None:
        """``data`` must not change while the source is in use. ``fingerprint``: of ``url``, where it was read."""
        self.url = url
        self.data = memoryview(data)
        self.size = len(self.data)
        self.fingerprint: Mapping[str, Any] = fingerprint or {"size": self.size}

    def readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.data[offset : offset + len(buffer)]

    def check(self) -> None:
        """Nothing can have changed."""

    def close(self) -> None:
        """Nothing to release."""


def as_bytes(contents: Any) -> memoryview:
    """Return a view of bytes-like contents. Raises ArgumentTypeError, a TypeError, for any other object."""
    try:
        view = memoryview(contents)
    except TypeError:
        raise ArgumentTypeError(f"contents must be bytes-like, not {type(contents).__name__}") from None
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())


_TRIES: Final = 5  #: dropped connections in a row, without progress, after which filling one buffer fails
_PROGRESS: Final = 64 * KIB  #: bytes after which a drop is the first one again: of some servers no answer is longer

Pieces = Callable[[int, int], Generator[bytes]]
"""Yields bytes of a range, at least one; arguments: offset and size. Raises SourceUnavailableError for a drop."""
Reach = Callable[[int, memoryview], Iterator[int]]
"""Reads into the buffer from an offset; yields how many bytes came, each time. Raises as :data:`Pieces` do."""


def fill(buffer: memoryview, offset: int, pieces: Pieces, watch: SourceWatch) -> None:
    """Fill the buffer from ``offset`` with pieces, as :func:`fill_by` does. Raises as the ``watch`` does, too."""

    def copied(offset: int, buffer: memoryview) -> Iterator[int]:
        filled = 0
        for piece in watched(pieces(offset, len(buffer)), watch):
            watch.arrived(len(piece))
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
            yield len(piece)

    fill_by(copied, buffer, offset)


def fill_by(reach: Reach, buffer: memoryview, offset: int) -> None:
    """Fill the buffer from ``offset``; after a dropped connection, go on at the byte that was reached.

    Raises SourceUnavailableError after ``_TRIES`` drops without progress, or at once if it says how long to wait.
    """
    filled = drops = counted = 0
    while filled < len(buffer):
        try:
            for count in reach(offset + filled, buffer[filled:]):
                filled += count
        except SourceUnavailableError as error:
            drops = 1 if filled - counted >= _PROGRESS else drops + 1
            counted = filled
            if drops == _TRIES or error.retry_after is not None:
                raise
            time.sleep(0.02 * 2**drops)
