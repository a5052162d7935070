"""The store protocol: what an object store can do with keys. It knows no paths, no jobs and no files.

A store belongs to one bucket. Constructing one sends no request. Every method may raise a
:class:`~worker.errors.StoreError`; nothing of a vendor's library leaves a store, except as ``__cause__``.
ETags are opaque and kept as sent, quotes included. Sizes and offsets are bytes; ranges are ``[offset, offset + size)``.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Literal, Protocol, runtime_checkable

from worker.stores.blob_values import (
    BlobHead,
    BlobOptions,
    Condition,
    DeleteFailure,
    Limits,
    Page,
    PartReceipt,
    PutReceipt,
    UploadEntry,
)


class Body(Protocol):
    """The bytes of one put or part: a seekable binary file whose reads may return views of a reused buffer.

    ``read(n)`` may return a memoryview that is only valid until the next call. ``__len__`` is the size in bytes.
    """

    def read(self, size: int = -1, /) -> bytes | memoryview:
        """Up to ``size`` bytes."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move; a request that is sent again rewinds."""
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
        """Give the connection back."""
        ...


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

    def options_of(self, key: str, *, with_tags: bool = True) -> BlobOptions:
        """What a blob carries beside its bytes: so that a copy in parts can carry it too.

        Without tags, ``tags`` is None: ``copy`` then carries those of its source. Raises KeyNotFoundError, also
        PermissionDeniedError for tags that may not be read: they would be lost.
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


@runtime_checkable
class HasLifecycle(Protocol):
    """What a store can tell whose buckets may have lifecycle rules."""

    def upload_lifetime(self, key: str) -> timedelta | None:
        """After how long the bucket's rules abort an unfinished upload at the key; None: never.

        Raises NotSupportedError, PermissionDeniedError.
        """
        ...
