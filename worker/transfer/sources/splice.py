"""The write rule as bytes: ``old[:offset] + zeros(up to offset) + data``."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from worker.errors import SourceChangedError, SourceError, StoreError
from worker.transfer.sources.source import Source
from worker.units import MIB

_ZEROS: Final = bytes(MIB)


class Splice:
    """A source of the whole new blob: what is kept of the old one, zeros, and the data, each read where it lies."""

    def __init__(self, old: Source | None, offset: int, data: Source) -> None:
        """``old`` is the blob that is written onto, None if there is none or nothing of it is kept."""
        self.url = data.url
        self.size = offset + data.size
        self.kept = min(old.size, offset) if old else 0  #: bytes of the old blob
        self.fingerprint: Mapping[str, Any] = {
            **data.fingerprint,
            "offset": offset,
            "onto": dict(old.fingerprint) if old else None,
        }
        self._old = old
        self._offset = offset
        self._data = data

    def followed_by(self, data: Source) -> "Splice":
        """This splice with other data."""
        return Splice(self._old, self._offset, data)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from ``offset``."""
        while buffer:
            if offset < self.kept and self._old is not None:
                count = min(len(buffer), self.kept - offset)
                _read_old(self._old, offset, buffer[:count])
            elif offset < self._offset:
                count = min(len(buffer), self._offset - offset, len(_ZEROS))
                buffer[:count] = _ZEROS[:count]
            else:
                count = len(buffer)
                self._data.readinto(offset - self._offset, buffer)
            offset, buffer = offset + count, buffer[count:]

    def check(self) -> None:
        """Raise SourceChangedError if the data may have changed. The old blob is the target's to look at."""
        self._data.check()

    def close(self) -> None:
        """Close the data."""
        self._data.close()


def _read_old(old: Source, offset: int, buffer: memoryview) -> None:
    try:
        old.readinto(offset, buffer)
    except SourceChangedError:
        raise
    except SourceError as error:  # it is the destination's store that says so: nothing is wrong with the data
        raise (error.__cause__ if isinstance(error.__cause__, StoreError) else error) from None


class Stream(Protocol):
    """Bytes that come in order and once, their number unknown."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, less only at the end; return how many bytes. Raises SourceUnavailableError."""
        ...


class SplicedStream:
    """The same for a reader: ``before`` from the byte ``position`` on, then the reader's bytes."""

    def __init__(self, before: Splice, position: int, reader: Stream) -> None:
        self._before = before
        self._position = position
        self._reader = reader

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, less only at the end; return how many bytes."""
        count = min(len(buffer), self._before.size - self._position)
        if count:
            self._before.readinto(self._position, buffer[:count])
            self._position += count
        return count + self._reader.readinto(buffer[count:])
