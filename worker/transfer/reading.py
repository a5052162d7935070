"""Reading a blob as a file: one version of it, over as many connections as it takes."""

import io
import time
from contextlib import AbstractContextManager, suppress
from typing import Final

from worker.errors import (
    KeyNotFoundError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    SourceChangedError,
    StoreError,
)
from worker.stores.store import Reader, Store
from worker.units import MIB

_TRIES: Final = 5  #: connections in a row that bring no byte
_BUFFER: Final = MIB  #: bytes


def open_reader(store: Store, key: str, offset: int, path: str) -> io.BufferedReader:
    """The blob's bytes from ``offset``; none at or past the end. Raises KeyNotFoundError, StoreError at the call."""
    return io.BufferedReader(BlobReader(store, key, offset, path), _BUFFER)


class BlobReader(io.RawIOBase):
    """The bytes of the version that was there first.

    Reading raises SourceChangedError once that is gone, StoreError if the store stays out of reach. Never ends early.
    """

    def __init__(self, store: Store, key: str, offset: int, path: str) -> None:
        self._store = store
        self._key = key
        self._path = path
        self._position = offset
        self._etag: str | None = None
        self._connection: AbstractContextManager[Reader] | None = None
        self._reader: Reader | None = None
        self._ended = False
        try:
            self._connect()
        except RangeNotSatisfiableError:
            self._ended = True

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fill the buffer, or what there is of it; 0 at the end."""
        if self.closed:
            raise ValueError("read of a closed blob")
        view = memoryview(buffer).cast("B")
        if self._ended or not view:
            return 0
        data = self._read(min(len(view), _BUFFER))
        view[: len(data)] = data
        self._position += len(data)
        self._ended = not data
        return len(data)

    def close(self) -> None:
        """Give the connection back."""
        self._disconnect()
        super().close()

    def _read(self, size: int) -> bytes:
        for number in range(_TRIES):
            try:
                if self._reader is None:
                    self._reconnect()
                assert self._reader is not None, "connected right before"
                return self._reader.read(size)
            except StoreError as error:
                self._disconnect()
                if not error.transient or number == _TRIES - 1:
                    raise
            time.sleep(0.02 * 2**number)
        raise AssertionError("the last try returns or raises")

    def _reconnect(self) -> None:
        try:
            self._connect()
        except (KeyNotFoundError, PreconditionFailedError, RangeNotSatisfiableError) as error:
            raise SourceChangedError(f"{self._store.name}: {self._path}: was replaced while it was read") from error

    def _connect(self) -> None:
        connection = self._store.get(self._key, self._position, if_match=self._etag)
        self._reader, self._connection = connection.__enter__(), connection
        self._etag = self._etag or self._reader.etag or None

    def _disconnect(self) -> None:
        connection, self._connection, self._reader = self._connection, None, None
        if connection is not None:
            with suppress(StoreError, OSError):
                connection.__exit__(None, None, None)
