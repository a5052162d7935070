"""What the memory store holds, and the one place where what readers see changes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from worker.errors import KeyNotFoundError, PreconditionFailedError
from worker.stores.blob_values import BlobOptions, Condition, Limits, PartReceipt, PutReceipt

_DEFAULT_CONTENT_TYPE: Final = "binary/octet-stream"  # S3's own


@dataclass(frozen=True, slots=True)
class Blob:
    """What readers see under a key. Never changed, only replaced."""

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
    """A bucket in a dict. Thread-safe; a blob is replaced in one step, and open readers keep the old bytes."""

    name = "memory"
    endpoint = ""

    def __init__(
        self,
        bucket: str = "memory",
        *,
        limits: Limits | None = None,
        checksum: str = "crc64nvme",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``now`` is the store's clock; times given out never stand still or go back, whatever it says."""
        self.bucket = bucket
        self.limits = limits or Limits()
        self.checksum = checksum
        self._now = now
        self._last_time = datetime.min.replace(tzinfo=UTC)
        self._blobs: dict[str, Blob] = {}
        self._uploads: dict[str, MemoryUpload] = {}
        self._lock = threading.RLock()

    def _blob(self, key: str, if_match: str | None = None) -> Blob:
        with self._lock:
            blob = self._blobs.get(key)
        if blob is None:
            raise KeyNotFoundError(f"memory: nothing is stored under {key!r} in bucket {self.bucket!r}")
        if if_match is not None and if_match != blob.etag:
            raise PreconditionFailedError(f"memory: {key!r} has the ETag {blob.etag}, not {if_match}")
        return blob

    def _commit(
        self, key: str, data: bytes, etag: str, condition: Condition | None, options: BlobOptions
    ) -> PutReceipt:
        """The one place where readers come to see something else. Called with the lock held."""
        if condition is not None:
            self._check(condition, key)
        self._blobs[key] = Blob(data, etag, self._tick(), options)
        return PutReceipt(etag)

    def _check(self, condition: Condition, key: str) -> None:
        there = self._blobs.get(key)
        if condition.if_none_match and there is not None:
            raise PreconditionFailedError(f"memory: something is stored under {key!r} already")
        if condition.if_match is not None and (there is None or there.etag != condition.if_match):
            raise PreconditionFailedError(f"memory: {key!r} no longer has the ETag {condition.if_match}")

    def _tick(self) -> datetime:
        with self._lock:
            self._last_time = max(self._now(), self._last_time + timedelta(microseconds=1))
            return self._last_time


def carried(source: BlobOptions, options: BlobOptions | None) -> BlobOptions:
    """What a copy carries: all that its source does, or the ``options``, with the source's tags if these have none."""
    if options is None:
        return source
    return normal(options if options.tags is not None else replace(options, tags=source.tags))


def normal(options: BlobOptions | None) -> BlobOptions:
    """The options as S3 would hold them, in copies of their own."""
    options = options or BlobOptions()
    return replace(
        options,
        content_type=options.content_type or _DEFAULT_CONTENT_TYPE,
        metadata={name.lower(): value for name, value in options.metadata.items()},
        tags=dict(options.tags or {}),
        headers=dict(options.headers),
    )
