"""Writes whole blocks of a file straight to the disk, past the page cache.

A download is on the disk before its rows are written, so the cache would only be one more copy of every byte, and the
flush afterwards one more pass over it: half of the CPU of a download.
"""

import errno
import os
from contextlib import suppress
from typing import Final

_BLOCK: Final = 4096  #: bytes; a multiple of the logical block size of all disks in use
_LEAST: Final = 256 * 1024  #: bytes; fewer are cheaper in the cache, where the disk gets them together with others


class DirectWrites:
    """Those of one open file. Thread-safe, apart from :meth:`close`."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor``: of the file, open for writing."""
        self._direct: int | None = None
        with suppress(OSError):  # a file system without them, or no /proc
            self._direct = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)

    def write(self, data: memoryview, offset: int) -> int:
        """Write what can be written so from ``offset``; return the number of bytes, which may be 0. Raises OSError."""
        if self._direct is None or offset % _BLOCK or len(data) < _LEAST:
            return 0
        try:
            return os.pwrite(self._direct, data[: len(data) - len(data) % _BLOCK], offset)
        except OSError as error:
            if error.errno == errno.EINVAL:  # this memory or this range is not aligned as the disk demands
                return 0
            raise

    def close(self) -> None:
        """Close the second descriptor; the file stays open by the first."""
        if self._direct is not None:
            os.close(self._direct)
