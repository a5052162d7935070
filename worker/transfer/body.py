"""The bytes of one part, read from its source through a reused buffer."""

from worker.transfer.plan import PartRange
from worker.transfer.sources import Source


class PartBody:
    """A seekable file over one part whose reads are views of the buffer: no byte is copied on its way to the socket.

    A part larger than the buffer is read in windows, once for the checksum and once for the wire; if the source
    changes in between, the store refuses the part. ``read`` may return fewer bytes than asked, ``b""`` at the end;
    what it returned is valid until the next call. One thread at a time.
    """

    def __init__(self, source: Source, part: PartRange, buffer: memoryview) -> None:
        self._source = source
        self._part = part
        self._buffer = buffer
        self._window = range(0)  # the part's bytes that the buffer holds
        self._position = 0

    def __len__(self) -> int:
        return self._part.size

    def read(self, size: int = -1, /) -> bytes | memoryview:
        """Up to ``size`` bytes, at most to the end of the window."""
        if self._position >= self._part.size or size == 0:
            return b""
        if self._position not in self._window:
            self._fill()
        start = self._position - self._window.start
        stop = len(self._window) if size < 0 else min(start + size, len(self._window))
        self._position += stop - start
        return self._buffer[start:stop]

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move within the part; botocore rewinds to send a part again."""
        self._position = (0, self._position, self._part.size)[whence] + offset
        return self._position

    def tell(self) -> int:
        """The position within the part."""
        return self._position

    def _fill(self) -> None:
        size = min(len(self._buffer), self._part.size - self._position)
        self._source.readinto(self._part.offset + self._position, self._buffer[:size])
        self._window = range(self._position, self._position + size)
