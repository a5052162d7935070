"""The bytes of one part, read from its source through a reused buffer."""

from typing import Protocol

from worker.transfer.plan import PartRange


class PartSource(Protocol):
    """The origin of a body's bytes: a source, or a part kept in a file."""

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from ``offset`` of the blob."""
        ...


class PartBody:
    """A seekable file over one part. Reads return views of the buffer, so no byte is copied on its way to the socket.

    A part larger than the buffer is read in windows, once for the checksum and once for the wire; if the source
    changes in between, the store refuses the part. ``read`` may return fewer bytes than asked for, ``b""`` at the end;
    the returned view is valid until the next call. Not thread-safe.
    """

    def __init__(self, source: PartSource, part: PartRange, buffer: memoryview, *, filled: int = 0) -> None:
        """``filled``: number of bytes of the part that the buffer holds already."""
        self.part = part
        self._source = source
        self._buffer = buffer
        self._window = range(filled)  # the part's bytes that the buffer holds
        self._position = 0

    def __len__(self) -> int:
        return self.part.size

    def read(self, size: int = -1, /) -> bytes | memoryview:
        """Return up to ``size`` bytes, at most to the end of the window."""
        if self._position >= self.part.size or size == 0:
            return b""
        if self._position not in self._window:
            self._fill()
        start = self._position - self._window.start
        stop = len(self._window) if size < 0 else min(start + size, len(self._window))
        self._position += stop - start
        return self._buffer[start:stop]

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move within the part; botocore rewinds to send a part again."""
        self._position = (0, self._position, self.part.size)[whence] + offset
        return self._position

    def tell(self) -> int:
        """The position within the part."""
        return self._position

    def _fill(self) -> None:
        size = min(len(self._buffer), self.part.size - self._position)
        self._source.readinto(self.part.offset + self._position, self._buffer[:size])
        self._window = range(self._position, self._position + size)
