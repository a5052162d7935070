"""The store protocol: what an object store can do with keys. It knows no paths, no jobs and no files.

A store belongs to one bucket. Constructing one sends no request. Every method may raise a
:class:`~worker.errors.StoreError`; nothing of a vendor's library leaves a store, except as ``__cause__``.
ETags are opaque and kept as sent, quotes included. Sizes and offsets are bytes; ranges are ``[offset, offset + size)``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
TIB: Final = 1024 * GIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What a multipart upload may look like. Source: S3 user guide, "Amazon S3 multipart upload limits"."""

    min_part_size: int = 5 * MIB  #: bytes; the last part may be smaller
    max_part_size: int = 5 * GIB  #: bytes; also the most that one put or one copy may hold
    max_parts: int = 10_000  #: parts of one upload, numbered from 1
    max_delete: int = 1_000  #: keys of one delete_batch


@dataclass(frozen=True, slots=True)
class Condition:
    """What a publishing call demands of the key at the moment it takes effect: at most one of the two is set."""

    if_match: str | None = None  #: the ETag that must be there, as sent by the store
    if_none_match: bool = False  #: True: nothing may be there


@dataclass(frozen=True, slots=True)
class BlobOptions:
    """What a blob carries beside its bytes."""

    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)  #: user metadata; names are lower case
    tags: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(
        default_factory=dict
    )  #: Cache-Control, Content-Disposition, -Encoding, -Language
    storage_class: str | None = None  #: a store that is configured with its own uses that
    encryption: str | None = None  #: "AES256", "aws:kms"; a store that is configured to encrypt uses its own
    encryption_key: str | None = None  #: the KMS key id that goes with "aws:kms"


@dataclass(frozen=True, slots=True)
class BlobHead:
    """What a reader would see under a key now."""

    key: str
    size: int
    etag: str
    mod_time: datetime  #: aware, UTC, the store's clock
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    version_id: str | None = None
    checksum: str | None = None  #: "ALGORITHM:base64" of the whole object, if the store keeps one
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class PutReceipt:
    """The store's answer to a call that published a blob. Any of it may be missing on some stores."""

    etag: str | None = None
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class PartReceipt:
    """A part as the store holds it."""

    part_number: int
    size: int
    etag: str
    checksum: str | None = None  #: "ALGORITHM:base64", where the store echoes it


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key of a listing."""

    key: str
    size: int
    mod_time: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, in byte order of the keys."""

    entries: Sequence[KeyEntry]
    prefixes: Sequence[str]  #: common prefixes, delimiter included; empty without a delimiter
    next_token: str | None  #: opaque; None on the last page


@dataclass(frozen=True, slots=True)
class UploadEntry:
    """One unfinished multipart upload."""

    key: str
    upload_id: str
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """A key that a batch did not delete, and why. A key that was not there is no failure."""

    key: str
    code: str  #: the store's own error code
    message: str


class Body(Protocol):
    """The bytes of one put or part: a seekable binary file whose reads may return views of a reused buffer.

    ``read(n)`` may return a memoryview that is only valid until the next call. ``__len__`` is the size in bytes.
    """

    def read(self, size: int = -1, /) -> bytes | memoryview: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...
    def __len__(self) -> int: ...


class Reader(Protocol):
    """The bytes of one get. Reading past the end gives ``b""``; a connection that breaks off raises StoreError."""

    def read(self, size: int = -1, /) -> bytes: ...
    def close(self) -> None: ...


class Store(Protocol):
    """One bucket of an object store.

    ``checksum`` arguments and fields are ``"CRC64NVME:<base64>"``, ``"CRC32C:<base64>"``, ``"MD5:<base64>"`` or None.
    """

    name: str  #: the driver's name in messages: "s3", "memory", "local"
    bucket: str  #: for the ledger
    endpoint: str  #: for the ledger; "" where there is none
    limits: Limits
    checksum: str  #: the algorithm of parts and blobs here: "crc64nvme", "crc32c", "md5" or "none"

    def put(
        self,
        key: str,
        body: Body | bytes,
        *,
        checksum: str | None = None,
        condition: Condition | None = None,
        options: BlobOptions | None = None,
    ) -> PutReceipt:
        """Publish a blob of at most ``limits.max_part_size`` bytes, replacing what is there.

        Raises PreconditionFailedError, ChecksumMismatchError; NotSupportedError if the store knows no such condition
        (nothing was written).
        """
        ...

    def get(
        self, key: str, offset: int = 0, size: int | None = None, *, if_match: str | None = None
    ) -> AbstractContextManager[Reader]:
        """Read ``size`` bytes (None: all) from ``offset``.

        Raises KeyNotFoundError, PreconditionFailedError (another ETag), RangeNotSatisfiableError at the call.
        """
        ...

    def head(self, key: str) -> BlobHead:
        """What a reader would see. Raises KeyNotFoundError."""
        ...

    def options_of(self, key: str) -> BlobOptions:
        """What a blob carries beside its bytes, tags included: so that a copy in parts can carry it too.

        Raises KeyNotFoundError.
        """
        ...

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = 1_000) -> Page:
        """One page of the keys that begin with ``prefix``."""
        ...

    def delete_batch(self, keys: Sequence[str], *, if_match: str | None = None) -> list[DeleteFailure]:
        """Delete up to ``limits.max_delete`` keys; a missing key counts as deleted.

        ``if_match`` goes with exactly one key and raises PreconditionFailedError if another blob is there.
        """
        ...

    def copy(
        self,
        source_key: str,
        key: str,
        *,
        source_if_match: str | None = None,
        condition: Condition | None = None,
        options: BlobOptions | None = None,
    ) -> PutReceipt:
        """Publish a server-side copy of at most ``limits.max_part_size`` bytes; metadata and tags come along.

        ``options`` replaces what the blob carries instead. Raises KeyNotFoundError, PreconditionFailedError.
        """
        ...

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        """Open a multipart upload and return its id. Nothing becomes visible."""
        ...

    def upload_part(
        self, key: str, upload_id: str, part_number: int, body: Body | bytes, *, checksum: str | None = None
    ) -> PartReceipt:
        """Send one part; sending a number again replaces it, so this is safe to repeat. Raises UploadNotFoundError."""
        ...

    def copy_part(
        self,
        key: str,
        upload_id: str,
        part_number: int,
        source_key: str,
        offset: int,
        size: int,
        *,
        source_if_match: str | None = None,
    ) -> PartReceipt:
        """Make one part out of a range of another key, server-side. Safe to repeat."""
        ...

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        """All parts that the store holds, by number. Raises UploadNotFoundError, possibly at the first item."""
        ...

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[PartReceipt],
        *,
        checksum: str | None = None,
        size: int | None = None,
        condition: Condition | None = None,
    ) -> PutReceipt:
        """Publish the upload. ``checksum`` is that of the whole blob, ``size`` its size in bytes: both are guards.

        Any error may hide a success: look at the key before believing it. NotSupportedError: the store knows no such
        condition, and nothing was published.
        """
        ...

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop the upload and its parts. Raises UploadNotFoundError. A part in flight may land later: list again."""
        ...

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        """Unfinished uploads. Not reliable on every store; nothing may depend on it for correctness."""
        ...

    def presign(self, method: Literal["GET", "HEAD"], key: str, expires_in: int) -> str:
        """A URL that allows one method on one key for ``expires_in`` seconds. Sends no request."""
        ...
