"""What stores take and return: frozen values, and bytes as a stream.

ETags are opaque and kept as sent, quotes included. Sizes are bytes, times aware and UTC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Protocol, runtime_checkable

from worker.errors import InvalidStoreRequestError
from worker.units import GIB, MIB

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"  #: of a blob that is written without one


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of requests to a store. Source: S3 user guide, "Amazon S3 multipart upload limits"."""

    min_part_size: int = 5 * MIB  #: bytes; the last part may be smaller
    max_part_size: int = 5 * GIB  #: bytes; also the most that one put or one copy may hold
    max_parts: int = 10_000  #: parts of one upload, numbered from 1
    max_delete: int = 1_000  #: keys of one delete_batch
    equal_parts: bool = False  #: True: all parts of an upload but the last must have one size

    def check_delete(self, store: str, keys: Sequence[str]) -> None:
        """Refuse more keys than one batch may delete; ``store`` is the store's name in messages.

        Stores call it before they delete the first key of a batch. Raises InvalidStoreRequestError.
        """
        if len(keys) > self.max_delete:
            raise InvalidStoreRequestError(f"{store}: {len(keys)} keys in one delete; at most {self.max_delete}")


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold at the key when a commit call takes effect. At most one of the two is set."""

    if_match: str | None = None  #: the blob must have this ETag, as received from the store
    if_none_match: bool = False  #: True: no blob may be there


@dataclass(frozen=True, slots=True)
class BlobOptions:
    """What is stored with a blob besides its bytes."""

    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)  #: user metadata; names are lower case
    tags: Mapping[str, str] | None = field(default_factory=dict)  #: None: a copy keeps those of its source
    #: Cache-Control, Content-Disposition, -Encoding, -Language, Expires, x-amz-website-redirect-location
    headers: Mapping[str, str] = field(default_factory=dict)
    acl: Mapping[str, str] = field(default_factory=dict)  #: x-amz-acl or x-amz-grant-*; empty: the bucket's default
    storage_class: str | None = None  #: a storage class in the storage's configuration wins
    encryption: str | None = None  #: "AES256" or "aws:kms"; ``encrypt`` in the storage's configuration wins
    encryption_key: str | None = None  #: the KMS key id that goes with "aws:kms"
    encryption_bucket_key: bool | None = None  #: whether "aws:kms" uses an S3 bucket key

    def updated(self, newer: "BlobOptions | None") -> "BlobOptions":
        """These options, with content type, metadata and headers replaced by those of ``newer`` that are set."""
        if newer is None:
            return self
        return replace(
            self,
            content_type=newer.content_type or self.content_type,
            metadata=newer.metadata or self.metadata,
            headers=newer.headers or self.headers,
        )

    def without(self, name: str) -> "BlobOptions":
        """These options without one entry of the user metadata."""
        return replace(self, metadata={key: text for key, text in self.metadata.items() if key != name})

    def elsewhere(self) -> "BlobOptions":
        """The options that are valid in another store: classes, keys and the accounts of an ACL belong to one store."""
        return replace(
            self, acl={}, storage_class=None, encryption=None, encryption_key=None, encryption_bucket_key=None
        )


@dataclass(frozen=True, slots=True)
class BlobHead:
    """A blob as a reader would see it now."""

    key: str
    size: int
    etag: str
    mod_time: datetime | None  #: aware, UTC, the store's clock; None: the store shows none
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    version_id: str | None = None
    checksum: str | None = None  #: "ALGORITHM:base64" of all bytes, if the store keeps one
    storage_class: str | None = None
    encryption: str | None = None  #: as in BlobOptions; with "aws:kms", the ETag is not an MD5
    locked: str | None = None  #: what keeps this version from being deleted: a legal hold, a retention; None: nothing


@dataclass(frozen=True, slots=True)
class PutReceipt:
    """The store's answer to a commit call. Some stores omit fields."""

    etag: str | None = None
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class PartReceipt:
    """A part as the store keeps it."""

    part_number: int
    size: int
    etag: str
    checksum: str | None = None  #: "ALGORITHM:base64", if the store returns it


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key of a listing."""

    key: str
    size: int | None  #: None: the store shows none
    mod_time: datetime | None  #: None: the store shows none
    etag: str  #: "" if the store shows none


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, in byte order of the keys."""

    entries: Sequence[KeyEntry]
    prefixes: Sequence[str]  #: common prefixes, delimiter included; empty without a delimiter
    next_token: str | None  #: opaque; None on the last page
    served_at: datetime = field(
        default_factory=lambda: datetime.now(UTC)
    )  #: the store's clock; on some stores in whole seconds


@dataclass(frozen=True, slots=True)
class UploadEntry:
    """One unfinished multipart upload."""

    key: str
    upload_id: str
    opened_at: datetime | None  #: None: the store does not tell


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """A key that a batch could not delete, and why."""

    key: str
    code: str  #: the store's own error code
    message: str


class Body(Protocol):
    """The bytes of one put or part: a seekable binary file whose reads may return views of a reused buffer.

    ``read(n)`` may return a memoryview that is only valid until the next call. ``__len__`` is the size in bytes.
    """

    def read(self, size: int = -1, /) -> bytes | memoryview:
        """Up to ``size`` bytes."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move; a store rewinds before it sends a request again."""
        ...

    def tell(self) -> int:
        """The position."""
        ...

    def __len__(self) -> int: ...


class Reader(Protocol):
    """The bytes of one get. Reading past the end gives ``b""``; a connection that breaks off raises StoreError."""

    etag: str  #: of the blob that is read

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes."""
        ...

    def close(self) -> None:
        """Release the connection."""
        ...


@runtime_checkable
class AbortableReader(Reader, Protocol):
    """A reader whose connection another thread may cut."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Read into the buffer; return the number of bytes, 0 at the end. Raises StoreError."""
        ...

    def abort(self) -> None:
        """Cut the connection: a read that waits in another thread ends at once, as does every later one."""
        ...


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
        content_type=options.content_type or DEFAULT_CONTENT_TYPE,
        metadata={name.lower(): value for name, value in options.metadata.items()},
        tags=dict(options.tags or {}),
        headers=dict(options.headers),
    )
