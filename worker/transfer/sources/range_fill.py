"""Fills a buffer with a range of a blob, in a thread of its own that can be left at any moment.

The thread reads straight into the buffer: handing each piece over to another thread costs more than receiving it. So
whoever leaves the thread cuts its connection, and waits until it has ended. A reader that cannot be cut off, of a file
on a network mount for example, is left at once: its bytes go into the buffer under a lock.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

from worker.errors import StoreUnavailableError
from worker.stores.attempts import in_this_context
from worker.stores.blob_values import AbortableReader, Reader
from worker.transfer.sources.patience import POLL, SourceWatch
from worker.units import KIB

_PIECE: Final = 512 * KIB  #: bytes read at once, at most; each part thread needs them beside its buffer

OpenRange = Callable[[], AbstractContextManager[Reader]]
"""Sends the request for the range that the buffer shall hold."""


def fill_range(buffer: memoryview, open_range: OpenRange, watch: SourceWatch | None) -> Iterator[int]:
    """Yield the number of bytes that have come into the buffer, again and again, until it is full.

    Without a ``watch`` it waits for any time, in the calling thread. Once this ends, nothing is written into the buffer
    any more. Raises as ``open_range``, its reader and the watch do, and StoreUnavailableError if the bytes end early;
    what has come by then has been yielded.
    """
    filling = _Filling(buffer, open_range)
    if watch is None:
        filling.run()
        yield filling.arrived()
    else:
        threading.Thread(target=in_this_context(filling.run), name="source", daemon=True).start()
        try:
            yield from _watched(filling, watch)
        finally:
            filling.leave()
    if filling.error is not None:
        raise filling.error


def _watched(filling: "_Filling", watch: SourceWatch) -> Iterator[int]:
    has_ended = False
    while not has_ended:
        has_ended = filling.ended.wait(POLL)
        if count := filling.arrived():
            yield count
            watch.arrived(count)
        elif not has_ended:
            watch.check(is_stalled=True)


class _Filling:
    """One range on its way into the buffer. :meth:`run` has a thread, the other methods belong to one that waits."""

    def __init__(self, buffer: memoryview, open_range: OpenRange) -> None:
        self.ended = threading.Event()
        self.error: BaseException | None = None  #: what :meth:`run` has ended with
        self._buffer = buffer
        self._open_range = open_range
        self._filled = self._told = 0
        self._lock = threading.Lock()
        self._is_left = False
        self._reader: AbortableReader | None = None  # one that writes into the buffer

    def run(self) -> None:
        """Read until the buffer is full or nobody waits for it."""
        try:
            with self._open_range() as reader:
                while self._filled < len(self._buffer) and not self._is_left:
                    self._filled += self._read_some(reader)
        except BaseException as error:  # raised where the bytes are needed
            self.error = error
        finally:
            self.ended.set()

    def arrived(self) -> int:
        """The number of bytes that have come since this was called last."""
        filled = self._filled
        count, self._told = filled - self._told, filled
        return count

    def leave(self) -> None:
        """Return once nothing writes into the buffer any more."""
        with self._lock:
            self._is_left = True
            reader = self._reader
        if reader is not None and not self.ended.is_set():
            reader.abort()
            self.ended.wait()

    def _read_some(self, reader: Reader) -> int:
        left = self._buffer[self._filled : self._filled + _PIECE]
        if isinstance(reader, AbortableReader):
            if not self._may_write(reader):
                return 0
            count = reader.readinto(left)
        else:
            piece = reader.read(len(left))
            count = len(piece)
            with self._lock:
                if not self._is_left:
                    left[:count] = piece
        if not count:
            raise StoreUnavailableError(f"the answer ended {len(self._buffer) - self._filled} bytes before its end")
        return count

    def _may_write(self, reader: AbortableReader) -> bool:
        """False if nobody waits any more; else :meth:`leave` cuts the reader off from now on."""
        with self._lock:
            self._reader = reader
            return not self._is_left
