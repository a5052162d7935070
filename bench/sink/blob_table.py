"""What the sink remembers: buckets, blobs and uploads, without their bytes."""

import hashlib
import secrets
import threading
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class StoredBlob:
    """One blob. ``headers`` are those that GET and HEAD show besides the size, the ETag and the time."""

    size: int
    etag: str  #: without quotes
    modified: float  #: Unix seconds
    headers: dict[str, str]
    checksums: dict[str, str]  #: headers that are shown if the request asks for checksums
    is_generated: bool = False  #: its checksums are those of the bytes that GET sends


@dataclass(slots=True)
class StoredPart:
    """One part of an upload."""

    size: int
    etag: str
    checksums: dict[str, str]
    modified: float


@dataclass(slots=True)
class StoredUpload:
    """One unfinished upload."""

    key: str
    headers: dict[str, str]
    opened: float
    parts: dict[int, StoredPart] = field(default_factory=dict)


class BlobTable:
    """The keys of one bucket, in order, and its uploads. The caller holds the lock of the tables."""

    def __init__(self) -> None:
        self.blobs: dict[str, StoredBlob] = {}
        self.uploads: dict[str, StoredUpload] = {}
        self._keys: list[str] = []

    def put(self, key: str, blob: StoredBlob) -> None:
        """Store a blob."""
        if key not in self.blobs:
            if self._keys and key < self._keys[-1]:
                insort(self._keys, key)
            else:
                self._keys.append(key)
        self.blobs[key] = blob

    def remove(self, key: str) -> StoredBlob | None:
        """Remove a blob, and return it."""
        blob = self.blobs.pop(key, None)
        if blob is not None:
            place = bisect_left(self._keys, key)
            del self._keys[place]
        return blob

    def after(self, key: str) -> Iterator[str]:
        """The keys from this one on, in order."""
        place = bisect_left(self._keys, key)
        while place < len(self._keys):
            yield self._keys[place]
            place += 1


class BlobTables:
    """All buckets, and what was asked of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.buckets: dict[str, BlobTable] = {}
        self.verbs: Counter[str] = Counter()
        self.received = self.sent = 0  #: bytes of bodies


def drawn_etag() -> str:
    """32 hexadecimal digits that no other blob has."""
    return secrets.token_hex(16)


def joined_etag(etags: list[str]) -> str:
    """The ETag of a completed upload: S3's formula."""
    digests = b"".join(bytes.fromhex(etag.partition("-")[0]) for etag in etags)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"


def now() -> float:
    """The server's clock, in whole seconds as S3 shows it."""
    return float(int(time.time()))


def only(headers: Mapping[str, str], start: str) -> dict[str, str]:
    """The headers whose names begin so."""
    return {name: value for name, value in headers.items() if name.startswith(start)}
