"""The write rule as a source: ``old[:offset] + zeros(up to offset) + data``."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from worker.errors import SourceChangedError, SourceError, StoreError
from worker.transfer.sources.source import Source
from worker.units import MIB

_ZEROS: Final = bytes(MIB)


class Splice:
    """A source of the whole new blob: kept bytes of the old blob, zeros, and the data."""

    def __init__(self, old: Source | None, offset: int, data: Source) -> None:
        """``old`` is the blob that is written onto; None if it is absent or none of its bytes are kept."""
        self.url = data.url
        self.size = offset + data.size
        self.kept = min(old.size, offset) if old else 0  #: bytes of the old blob
        self._onto = dict(old.fingerprint) if old else None
        self._old = old
        self._offset = offset
        self._data = data

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """That of the data as it is now, and what the data are written onto."""
        return {**self._data.fingerprint, "offset": self._offset, "onto": self._onto}

    def followed_by(self, data: Source) -> "Splice":
        """Return this splice with other data."""
        return Splice(self._old, self._offset, data)

    def readinto(self, offset: int, buffer: memoryview) -> None:
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
        """Raise SourceChangedError if the data may have changed. The target checks the old blob."""
        self._data.check()

    def close(self) -> None:
        self._data.close()


def _read_old(old: Source, offset: int, buffer: memoryview) -> None:
    try:
        old.readinto(offset, buffer)
    except SourceChangedError:
        raise
    except SourceError as error:  # an error of the destination's store, not of the data
        raise (error.__cause__ if isinstance(error.__cause__, StoreError) else error) from None


class Stream(Protocol):
    """Bytes that come once, in order, their number unknown."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, less only at the end; return the number of bytes. Raises SourceUnavailableError."""
        ...


class SplicedStream:
    """A stream: ``before`` from the byte ``position`` on, then the bytes of a reader."""

    def __init__(self, before: Splice, position: int, reader: Stream) -> None:
        self._before = before
        self._position = position
        self._reader = reader

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), self._before.size - self._position)
        if count:
            self._before.readinto(self._position, buffer[:count])
            self._position += count
        return count + self._reader.readinto(buffer[count:])
