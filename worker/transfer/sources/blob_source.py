"""A blob as a source, always in the version that was seen first."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from worker.errors import (
    BucketNotFoundError,
    ChecksumMismatchError,
    CredentialsError,
    KeyNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    SourceChangedError,
    SourceError,
    SourceNotAllowedError,
    SourceNotFoundError,
    SourceUnavailableError,
    StoreError,
    StoreUnavailableError,
)
from worker.stores.blob_values import BlobHead, Reader
from worker.stores.store import Store
from worker.transfer.sources.patience import Patience, SourceWatch, waited_for
from worker.transfer.sources.range_fill import fill_range
from worker.transfer.sources.source import fill_by

_TRANSIENT: Final = (StoreUnavailableError, CredentialsError, ChecksumMismatchError)


def version_of(head: BlobHead) -> dict[str, Any]:
    """Return JSON values that differ between two versions of a blob, even with the same bytes."""
    mod_time = head.mod_time.isoformat() if head.mod_time else None
    return {"size": head.size, "etag": head.etag, "mod_time": mod_time, "version_id": head.version_id}


class BlobSource:
    """The blob at a key; messages name it by ``url``.

    Every error of its store becomes a SourceError, so that a transfer does not take it for one of the destination.
    """

    def __init__(
        self, store: Store, key: str, url: str, *, head: BlobHead | None = None, patience: Patience | None = None
    ) -> None:
        """Send a HEAD, unless the ``head`` of the wanted version is given. Without ``patience`` it waits for any time.

        Raises SourceNotFoundError, SourceNotAllowedError, SourceUnavailableError.
        """
        self.url = url
        self._store = store
        self._key = key
        self._patience = patience
        if head is None:
            with self._store_errors(KeyNotFoundError, absent=SourceNotFoundError):
                head = self._head()
        self.size = head.size
        self.fingerprint: Mapping[str, Any] = version_of(head)

    def readinto(self, offset: int, buffer: memoryview) -> None:
        if offset + len(buffer) > self.size:
            raise SourceChangedError(f"{self.url}: has {self.size} bytes, {offset + len(buffer)} were expected")
        watch = self._patience.watch(self.url) if self._patience else None
        fill_by(partial(self._fill, watch), buffer, offset)

    def check(self) -> None:
        """Raise SourceChangedError if another blob is there, or none."""
        with self._store_errors(KeyNotFoundError):
            head = self._head()
        if (now := version_of(head)) != self.fingerprint:
            raise SourceChangedError(f"{self.url}: changed while it was read: {self.fingerprint} is now {now}")

    def close(self) -> None:
        """Nothing to release: the store belongs to its driver."""

    def _head(self) -> BlobHead:
        if self._patience is None:
            return self._store.head(self._key)
        return waited_for(lambda: self._store.head(self._key), self._patience.watch(self.url))

    def _fill(self, watch: SourceWatch | None, offset: int, buffer: memoryview) -> Iterator[int]:
        with self._store_errors(KeyNotFoundError, PreconditionFailedError, RangeNotSatisfiableError):
            yield from fill_range(buffer, lambda: self._open(offset, len(buffer)), watch)

    @contextmanager
    def _open(self, offset: int, size: int) -> Iterator[Reader]:
        with self._store.get(self._key, offset, size, if_match=self.fingerprint["etag"]) as reader:
            if reader.etag and reader.etag != self.fingerprint["etag"]:  # some stores ignore If-Match
                raise SourceChangedError(f"{self.url}: changed while it was read: its ETag is {reader.etag} now")
            yield reader

    @contextmanager
    def _store_errors(self, *gone: type[StoreError], absent: type[SourceError] = SourceChangedError) -> Iterator[None]:
        """Turn errors of the store into those of a source; an error of a class in ``gone`` becomes ``absent``."""
        try:
            yield
        except StoreError as error:
            kind: type[SourceError] = SourceError
            if isinstance(error, gone):
                kind = absent
            elif isinstance(error, PermissionDeniedError):
                kind = SourceNotAllowedError
            elif isinstance(error, BucketNotFoundError):
                kind = SourceNotFoundError
            elif isinstance(error, _TRANSIENT):
                kind = SourceUnavailableError
            raise kind(f"{self.url}: {error}") from error
