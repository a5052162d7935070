"""Bytes in an unnamed file, which disappears with its process. Not for tmpfs, whose files are memory."""

import os
import tempfile
from pathlib import Path


class Spool:
    """A file to append to, and to read at any offset by several threads. Every method may raise OSError."""

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(buffering=0, dir=directory, prefix="blobferry-")  # noqa: SIM115  see close

    def append(self, piece: bytes | memoryview) -> None:
        """Write the whole piece at the end."""
        left = memoryview(piece)
        while left:  # an almost full disk takes only the first bytes
            left = left[self._file.write(left) :]

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill the buffer from ``offset``, less only at the end; return the number of bytes."""
        filled = 0
        while filled < len(buffer) and (count := os.preadv(self._file.fileno(), [buffer[filled:]], offset + filled)):
            filled += count
        return filled

    def close(self) -> None:
        """Close the file, which removes it."""
        self._file.close()
