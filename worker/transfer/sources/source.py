"""Sources: bytes that can be read again at any offset, from several threads, and that tell when they have changed."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from worker.errors import SourceUnavailableError


@runtime_checkable
class Source(Protocol):
    """What a transfer reads."""

    url: str
    size: int  #: bytes
    fingerprint: Mapping[str, Any]  #: JSON values that differ once the bytes may differ

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from ``offset``. Thread-safe. Raises SourceChangedError if there are not that many bytes."""
        ...

    def check(self) -> None:
        """Raise SourceChangedError if the bytes may no longer be those of the fingerprint."""
        ...

    def close(self) -> None:
        """Release what reading needs."""
        ...


class MemorySource:
    """Bytes in memory."""

    url = "memory"

    def __init__(self, data: bytes | memoryview) -> None:
        """``data`` must not change meanwhile."""
        self.data = memoryview(data)
        self.size = len(self.data)
        self.fingerprint: Mapping[str, Any] = {"size": self.size}

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from ``offset``."""
        buffer[:] = self.data[offset : offset + len(buffer)]

    def check(self) -> None:
        """Nothing can have changed."""

    def close(self) -> None:
        """Nothing to release."""


def as_bytes(contents: Any) -> memoryview:
    """A view of bytes-like contents. Raises TypeError for anything else."""
    try:
        view = memoryview(contents)
    except TypeError:
        raise TypeError(f"contents must be bytes-like, not {type(contents).__name__}") from None
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())


_TRIES: Final = 5  #: dropped connections after which filling one buffer fails


Pieces = Callable[[int, int], Iterator[bytes]]
"""Bytes from an offset: at least one, at most so many. Raises SourceUnavailableError when the connection drops."""


def fill(buffer: memoryview, offset: int, pieces: Pieces) -> None:
    """Fill the buffer from ``offset``. A dropped connection is made again at the byte it had reached, a few times.

    Raises SourceUnavailableError.
    """
    filled = drops = 0
    while filled < len(buffer):
        try:
            for piece in pieces(offset + filled, len(buffer) - filled):
                buffer[filled : filled + len(piece)] = piece
                filled += len(piece)
        except SourceUnavailableError:
            drops += 1
            if drops == _TRIES:
                raise
            time.sleep(0.02 * 2**drops)
