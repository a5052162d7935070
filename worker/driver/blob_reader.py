"""Reads one version of a blob as a file, over as many connections as needed."""

import io
import time
from contextlib import AbstractContextManager, suppress
from typing import Final

from worker.errors import (
    BlobferryError,
    KeyNotFoundError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    SourceChangedError,
    StoreError,
)
from worker.stores.blob_values import Reader
from worker.stores.store import Store
from worker.units import MIB

_TRIES: Final = 5  #: connections in a row that deliver no byte
_BUFFER: Final = MIB  #: bytes


def open_reader(store: Store, key: str, offset: int, path: str) -> io.BufferedReader:
    """The blob's bytes from ``offset``, none at or past the end. Raises KeyNotFoundError, StoreError at the call."""
    return io.BufferedReader(BlobReader(store, key, offset, path), _BUFFER)


class BlobReader(io.RawIOBase):
    """The bytes of the version that the first connection found. Never ends early.

    Reading raises SourceChangedError once that version is replaced, StoreError if the store stays out of reach. After
    an error every further read raises it again, since bytes may have been lost with it.
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
        self._error: BlobferryError | None = None
        try:
            self._connect()
        except RangeNotSatisfiableError:
            self._ended = True

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Read into the buffer; return the number of bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self._read_next(min(len(view), _BUFFER))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """All remaining bytes, in larger steps than the standard library's."""
        return b"".join(iter(lambda: self._read_next(_BUFFER), b""))

    def close(self) -> None:
        """Release the connection."""
        self._disconnect()
        super().close()

    def _read_next(self, size: int) -> bytes:
        if self.closed:
            raise ValueError("read of a closed blob")
        if self._error is not None:
            raise self._error
        if self._ended or not size:
            return b""
        try:
            data = self._read_with_retries(size)
        except BlobferryError as error:
            self._error = error
            raise
        self._position += len(data)
        self._ended = not data
        return data

    def _read_with_retries(self, size: int) -> bytes:
        for number in range(_TRIES):
            try:
                if self._reader is None:
                    self._reconnect()
                assert self._reader is not None, "connected right before"
                return self._reader.read(size)
            except StoreError as error:
                self._disconnect()
                # Without an ETag, another version on the next connection could not be recognised.
                if not error.transient or number == _TRIES - 1 or self._etag is None:
                    raise
            time.sleep(0.02 * 2**number)
        raise AssertionError("the last try returns or raises")

    def _reconnect(self) -> None:
        replaced = f"{self._store.name}: {self._path}: the blob was replaced while it was read"
        try:
            self._connect()
        except (KeyNotFoundError, PreconditionFailedError, RangeNotSatisfiableError) as error:
            raise SourceChangedError(replaced) from error
        if self._reader is not None and self._reader.etag != self._etag:  # some stores ignore If-Match
            self._disconnect()
            raise SourceChangedError(replaced)

    def _connect(self) -> None:
        connection = self._store.get(self._key, self._position, if_match=self._etag)
        self._reader, self._connection = connection.__enter__(), connection
        self._etag = self._etag or self._reader.etag or None

    def _disconnect(self) -> None:
        connection, self._connection, self._reader = self._connection, None, None
        if connection is not None:
            with suppress(StoreError, OSError):
                connection.__exit__(None, None, None)
