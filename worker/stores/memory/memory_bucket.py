"""The contents of a memory store, and the one method that changes what readers see."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from worker.stores.blob_values import BlobOptions, Condition, Limits, PartReceipt, PutReceipt
from worker.stores.checksums import Digests
from worker.stores.refusals import (
    check_algorithm,
    check_body_size,
    check_checksum,
    check_condition,
    check_if_match,
    check_key,
    check_size,
    key_not_found,
)
from worker.stores.streams import Body, pieces_of


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
            raise key_not_found("memory", self.name, key)
        check_if_match("memory", key, blob.etag, if_match)
        return blob

    def commit(self, key: str, data: bytes, etag: str, condition: Condition | None, options: BlobOptions) -> PutReceipt:
        """Make the blob visible. Call with the lock held. Raises PreconditionFailedError."""
        current = self.blobs.get(key)
        check_condition("memory", key, condition, None if current is None else current.etag)
        self.blobs[key] = Blob(data, etag, self.next_time(), options)
        return PutReceipt(etag)

    def next_time(self) -> datetime:
        """A time of the store's clock, later than all earlier ones."""
        with self.lock:
            self._last_time = max(self.now(), self._last_time + timedelta(microseconds=1))
            return self._last_time


def received(body: Body | bytes, checksum: str | None, limits: Limits, key: str) -> bytes:
    """The bytes of a body. Raises InvalidStoreRequestError, ChecksumMismatchError."""
    check_key("memory", key)
    data = b"".join(bytes(piece) for piece in pieces_of(body))
    check_body_size("memory", len(data), len(body))
    check_size("memory", key, len(data), limits)
    check_whole(data, checksum, key)
    return data


def check_whole(data: bytes, checksum: str | None, key: str) -> None:
    """Refuse bytes that do not have this checksum. Raises ChecksumMismatchError."""
    algorithm = check_algorithm("memory", checksum)
    if algorithm is not None:
        check_checksum("memory", key, Digests(algorithm).update(data).checksum(algorithm), checksum)


def etag_of(data: bytes) -> str:
    """The quoted MD5: S3's ETag of a blob or part that was sent in one request."""
    return f'"{Digests("MD5").update(data).md5}"'
