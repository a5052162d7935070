"""A caller's reader as a stream: short reads are joined, and its errors are told apart from the store's."""

from typing import Any, Final, Protocol, Self

from worker.errors import ArgumentTypeError, SourceUnavailableError
from worker.units import MIB

_PIECE: Final = MIB  #: bytes per read, at most


class ReadableFile(Protocol):
    """The argument of ``write_stream``: a binary file, or any object with its ``read``."""

    def read(self, size: int, /) -> Any:
        """Return up to ``size`` bytes, ``b""`` at the end."""
        ...


class ReaderStream:
    """The bytes of a reader, read once, in order, and counted."""

    def __init__(self, reader: ReadableFile, path: str) -> None:
        self.total_read = 0
        self._reader = reader
        self._path = path
        self._ahead = memoryview(b"")  # read but not yet returned
        self._ended = False

    @classmethod
    def of(cls, reader: Any, path: str) -> Self:
        """Make the stream of a reader. Raises ArgumentTypeError for any other object."""
        if not callable(getattr(reader, "read", None)):
            raise ArgumentTypeError(f"{path}: needs a reader with read(size), or a source, got {type(reader).__name__}")
        return cls(reader, path)

    def whole(self, size: int) -> bytearray | None:
        """Return all bytes if there are at most ``size``; otherwise None, and ``readinto`` still gives all."""
        data = bytearray()
        while len(data) <= size and (piece := self._next(min(size + 1 - len(data), _PIECE))):
            data += piece
            piece.release()  # a view of the reader's own buffer would keep the next read from resizing it
        if len(data) <= size:
            return data
        self._ahead = memoryview(data)
        return None

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, less only at the end; return the number of bytes."""
        filled = 0
        while filled < len(buffer):
            piece = self._ahead or self._next(min(len(buffer) - filled, _PIECE))
            if not piece:
                break
            fits = piece[: len(buffer) - filled]
            buffer[filled : filled + len(fits)] = fits
            filled += len(fits)
            self._ahead = memoryview(bytes(piece[len(fits) :]))
            fits.release()
            piece.release()
        return filled

    def _next(self, size: int) -> memoryview:
        if self._ended:
            return memoryview(b"")
        try:
            data = self._reader.read(size)
        except Exception as error:
            raise SourceUnavailableError(
                f"{self._path}: the reader failed after {self.total_read} bytes: {type(error).__name__}: {error}"
            ) from error
        try:
            piece = memoryview(data).cast("B")
        except TypeError:
            raise TypeError(
                f"{self._path}: the reader's read() must return bytes, it returned {type(data).__name__}"
            ) from None
        self.total_read += len(piece)
        self._ended = not piece
        return piece
