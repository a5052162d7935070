"""The contents of a memory store, and the one method that changes what readers see."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from worker.errors import KeyNotFoundError, PreconditionFailedError
from worker.stores.blob_values import BlobOptions, Condition, PartReceipt, PutReceipt

_DEFAULT_CONTENT_TYPE: Final = "binary/octet-stream"  # S3's own


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as readers see it. Never modified, only replaced."""

    data: bytes
    etag: str
    mod_time: datetime
    options: BlobOptions


@dataclass(slots=True)
class MemoryUpload:
    """An unfinished upload; its parts by number."""

    key: str
    opened_at: datetime
    options: BlobOptions
    data: dict[int, bytes] = field(default_factory=dict)
    receipts: dict[int, PartReceipt] = field(default_factory=dict)


class MemoryBucket:
    """A bucket in a dict. Thread-safe. A blob is replaced in one step, and open readers keep the old bytes."""

    def __init__(self, name: str, now: Callable[[], datetime]) -> None:
        """``now`` is the store's clock; :meth:`next_time` grows even if that stands still or goes back."""
        self.name = name
        self.blobs: dict[str, Blob] = {}
        self.uploads: dict[str, MemoryUpload] = {}
        self.lock = threading.RLock()
        self.now = now
        self._last_time = datetime.min.replace(tzinfo=UTC)

    def blob(self, key: str, if_match: str | None = None) -> Blob:
        """The blob under the key. Raises KeyNotFoundError, PreconditionFailedError."""
        with self.lock:
            blob = self.blobs.get(key)
        if blob is None:
            raise KeyNotFoundError(f"memory: nothing is stored under {key!r} in bucket {self.name!r}")
        if if_match is not None and if_match != blob.etag:
            raise PreconditionFailedError(f"memory: {key!r} has the ETag {blob.etag}, not {if_match}")
        return blob

    def commit(self, key: str, data: bytes, etag: str, condition: Condition | None, options: BlobOptions) -> PutReceipt:
        """Make the blob visible. Call with the lock held. Raises PreconditionFailedError."""
        if condition is not None:
            self._refuse_unless(condition, key)
        self.blobs[key] = Blob(data, etag, self.next_time(), options)
        return PutReceipt(etag)

    def _refuse_unless(self, condition: Condition, key: str) -> None:
        current = self.blobs.get(key)
        if condition.if_none_match and current is not None:
            raise PreconditionFailedError(f"memory: a blob is already stored under {key!r}")
        if condition.if_match is not None and (current is None or current.etag != condition.if_match):
            raise PreconditionFailedError(f"memory: {key!r} no longer has the ETag {condition.if_match}")

    def next_time(self) -> datetime:
        """A time of the store's clock, later than all earlier ones."""
        with self.lock:
            self._last_time = max(self.now(), self._last_time + timedelta(microseconds=1))
            return self._last_time


def carried(source: BlobOptions, options: BlobOptions | None) -> BlobOptions:
    """The options of a copy: those of its source, or ``options``, with the source's tags if their ``tags`` is None."""
    if options is None:
        return source
    return normal(options if options.tags is not None else replace(options, tags=source.tags))


def normal(options: BlobOptions | None) -> BlobOptions:
    """A copy of the options, normalised as S3 does it."""
    options = options or BlobOptions()
    return replace(
        options,
        content_type=options.content_type or _DEFAULT_CONTENT_TYPE,
        metadata={name.lower(): value for name, value in options.metadata.items()},
        tags=dict(options.tags or {}),
        headers=dict(options.headers),
    )
