"""What the memory store holds, and the one place where what readers see changes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

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
from worker.stores.store import Body
from worker.units import KIB

_READ_SIZE: Final = 128 * KIB


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
            raise key_not_found(self.name, self.bucket, key)
        check_if_match(self.name, key, blob.etag, if_match)
        return blob

    def _commit(
        self, key: str, data: bytes, etag: str, condition: Condition | None, options: BlobOptions
    ) -> PutReceipt:
        """The one place where readers come to see something else. Called with the lock held."""
        there = self._blobs.get(key)
        check_condition(self.name, key, condition, None if there is None else there.etag)
        self._blobs[key] = Blob(data, etag, self._tick(), options)
        return PutReceipt(etag)

    def _tick(self) -> datetime:
        with self._lock:
            self._last_time = max(self._now(), self._last_time + timedelta(microseconds=1))
            return self._last_time


def received(body: Body | bytes, checksum: str | None, limits: Limits, key: str) -> bytes:
    """The bytes of a body, read piece by piece, which must be those that the checksum was made of."""
    check_key("memory", key)
    data = body if isinstance(body, bytes) else _read(body)
    check_size("memory", key, len(data), limits)
    check_whole(data, checksum, key)
    return data


def check_whole(data: bytes, checksum: str | None, key: str) -> None:
    """Refuse bytes other than those that the checksum was made of."""
    algorithm = check_algorithm("memory", checksum)
    if algorithm is not None:
        check_checksum("memory", key, Digests(algorithm).update(data).checksum(algorithm), checksum)


def etag_of(data: bytes) -> str:
    """The quoted MD5, as S3 gives it to what came in one piece."""
    return f'"{Digests("MD5").update(data).md5}"'


def _read(body: Body) -> bytes:
    body.seek(0)
    data = bytearray()
    while piece := body.read(_READ_SIZE):
        data += piece
    check_body_size("memory", len(data), len(body))
    return bytes(data)
