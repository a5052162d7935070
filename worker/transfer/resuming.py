"""Filling a buffer through connections that may drop: each new one begins at the byte that the last one had reached."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from worker.errors import SourceUnavailableError

_TRIES: Final = 5  #: connections that may drop while one buffer is filled

Pieces = Callable[[int, int], Iterator[bytes]]
"""Bytes from an offset: at least one and at most so many. Raises SourceUnavailableError where it breaks off."""


def fill(buffer: memoryview, offset: int, pieces: Pieces) -> None:
    """Fill the buffer with the bytes from ``offset``. Raises SourceUnavailableError after a few drops."""
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
