"""The store protocol: operations on the keys of one bucket. A store knows no paths, no jobs and no files.

Constructing a store sends no request. Every method may raise a :class:`~worker.errors.StoreError`; no exception of a
vendor's library leaves a store, except as ``__cause__``. ETags are opaque and kept as received, quotes included. Sizes
and offsets are bytes; ranges are ``[offset, offset + size)``. Methods are thread-safe.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from blobferry.checks.url_options import Method
from blobferry.signing.signed_url import SignedUrl
from worker.stores.blob_values import (
    BlobHead,
    BlobOptions,
    Body,
    Condition,
    DeleteFailure,
    Limits,
    Page,
    PartReceipt,
    PutReceipt,
    Reader,
    UploadEntry,
)
from worker.stores.capabilities import Capabilities


class Store(Protocol):
    """One bucket of an object store.

    ``checksum`` arguments and fields are ``"CRC64NVME:<base64>"``, ``"CRC32C:<base64>"``, ``"MD5:<base64>"`` or None.

    The commit calls (``put``, ``copy``, ``complete_upload``) raise PreconditionFailedError if their ``condition`` does
    not hold, NotSupportedError if the store does not support it, and ChecksumMismatchError if the received bytes are
    not those of the checksum; then nothing became visible. Any other error may hide a success: look at the key first.
    """

    name: str  #: the driver's name in messages: "s3", "memory", "local"
    bucket: str  #: recorded in the ledger
    endpoint: str  #: recorded in the ledger; "" where there is none
    limits: Limits
    checksum: str  #: the algorithm of parts and blobs here: "crc64nvme", "crc32c", "md5" or "none"
    capabilities: Capabilities  #: what it lacks

    @property
    def identity(self) -> str:
        """Equal for two stores that share their keys: endpoint and bucket, or the directory; recorded in path locks."""
        ...

    def warm_up(self) -> None:
        """Prepare what the first request would otherwise wait for. Optional, repeatable; sends no request."""
        ...

    # --- whole blobs -------------------------------------------------------------------------------------------------

    def put(
        self, key: str, body: Body | bytes,
        *, checksum: str | None = None, condition: Condition | None = None, options: BlobOptions | None = None,
    ) -> PutReceipt:  # fmt: skip
        """Make a blob visible in one request, replacing the blob at the key.

        Args:
            key: at most 1,024 bytes of UTF-8.
            body: at most ``limits.max_part_size`` bytes; read from its beginning. Its own errors are raised unchanged.
            checksum: of the body; the store refuses other bytes. None: not checked.
            condition: what must hold at the key when the put takes effect. None: replaces any blob.
            options: content type, metadata, tags. None: the store's defaults; nothing of the old blob is kept.
        """
        ...

    def get(
        self, key: str, offset: int = 0, size: int | None = None, *, if_match: str | None = None
    ) -> AbstractContextManager[Reader]:
        """Read a range of a blob. Errors are raised by the call, not by the first read.

        Args:
            key: of the blob.
            offset: of the first byte; must lie within the blob, unless the range is the whole blob.
            size: in bytes; None: up to the end. A range beyond the end is cut there.
            if_match: the ETag that the blob must have.

        Raises:
            KeyNotFoundError: no blob is stored under the key.
            PreconditionFailedError: the blob has another ETag.
            RangeNotSatisfiableError: the offset is at or past the end.
        """
        ...

    def head(self, key: str) -> BlobHead:
        """The blob as a reader would see it now. Raises KeyNotFoundError."""
        ...

    def options_of(self, key: str, *, with_tags: bool = True) -> BlobOptions:
        """The options of a blob, for a copy in parts that carries them.

        With ``with_tags=False``, ``tags`` is None, and ``copy`` uses those of its source. Raises KeyNotFoundError, and
        PermissionDeniedError if the tags may not be read, since a copy would lose them.
        """
        ...

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = 1_000) -> Page:
        """One page of the keys that begin with ``prefix``, in byte order.

        Args:
            prefix: "" for all keys.
            delimiter: keys that contain it after the prefix are grouped into ``Page.prefixes``. "": no grouping.
            token: ``Page.next_token`` of the previous page; None for the first page.
            limit: the most keys and prefixes together, 1 to 1,000. A page may hold fewer and not be the last.
        """
        ...

    def delete_batch(
        self, keys: Sequence[str], *, if_match: str | None = None, etags: Mapping[str, str] | None = None
    ) -> list[DeleteFailure]:
        """Delete up to ``limits.max_delete`` keys; a missing key counts as deleted. Never repeated by the store itself.

        Args:
            keys: to delete.
            if_match: with exactly one key: raise PreconditionFailedError if the blob there has another ETag.
            etags: ETags by key. A blob with another one stays, and is returned with the code ``PreconditionFailed``.
                Not every store compares.

        Returns the keys that were not deleted.
        """
        ...

    def copy(
        self, source_key: str, key: str,
        *, source_if_match: str | None = None, condition: Condition | None = None, options: BlobOptions | None = None,
    ) -> PutReceipt:  # fmt: skip
        """Make a server-side copy visible in one request. Raises KeyNotFoundError for the source.

        Args:
            source_key: a blob of at most ``limits.max_part_size`` bytes in this bucket.
            key: where the copy becomes visible; the source's own key only with ``options``.
            source_if_match: the ETag that the source must have; else PreconditionFailedError is raised.
            condition: what must hold at ``key``, as for ``put``.
            options: replace all that the source carries. None: content type, metadata, tags, storage class and
                encryption are copied.
        """
        ...

    # --- uploads in parts --------------------------------------------------------------------------------------------

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        """Open a multipart upload and return its id. Nothing becomes visible.

        Not safe to repeat: an error may hide an open upload whose id nobody knows; find it with ``list_uploads``.
        """
        ...

    def upload_part(
        self, key: str, upload_id: str, part_number: int, body: Body | bytes, *, checksum: str | None = None
    ) -> PartReceipt:
        """Send one part. Safe to repeat: a part replaces an earlier one of its number.

        Args:
            key, upload_id: of the upload.
            part_number: 1 to ``limits.max_parts``. Parts may be sent in any order and at once.
            body: ``limits.min_part_size`` to ``limits.max_part_size`` bytes; the last part may be smaller. The minimum
                is only checked at completion. The body's own errors are raised unchanged.
            checksum: of this part; the store refuses other bytes. None: not checked.

        Raises:
            UploadNotFoundError: the upload was completed, aborted or never opened.
            ChecksumMismatchError: the bytes that arrived are not those of the checksum.
        """
        ...

    def copy_part(
        self, key: str, upload_id: str, part_number: int, source_key: str, offset: int, size: int, *,
        source_if_match: str | None = None,
    ) -> PartReceipt:  # fmt: skip
        """Make one part from a range of another blob, server-side. Safe to repeat, as ``upload_part``.

        Args:
            key, upload_id: of the upload.
            part_number: 1 to ``limits.max_parts``; shares its numbers with parts that are sent.
            source_key: a blob in this bucket.
            offset: of the range in the source, in bytes.
            size: of the range, in bytes; limited as the body of ``upload_part``. The range must lie within the source.
            source_if_match: the ETag that the source must have: without it, parts may come from two versions.

        Raises:
            UploadNotFoundError: the upload was completed, aborted or never opened.
            KeyNotFoundError: no blob is stored under the source's key.
            PreconditionFailedError: the source has another ETag.
        """
        ...

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        """All parts of the upload, by number. Raises UploadNotFoundError, possibly at the first item."""
        ...

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[PartReceipt], *,
        checksum: str | None = None, size: int | None = None, condition: Condition | None = None,
    ) -> PutReceipt:  # fmt: skip
        """Join parts to a blob and make it visible, replacing the blob at the key.

        Args:
            key, upload_id: of the upload.
            parts: receipts of the parts to join, by ascending number; gaps are allowed, and other parts are dropped.
                All but the last hold at least ``limits.min_part_size`` bytes.
            checksum: of the whole blob; None: not checked.
            size: of the whole blob in bytes; None: not checked.
            condition: what must hold at the key when the completion takes effect, as for ``put``.

        A completion that is refused leaves the upload open.

        Raises:
            UploadNotFoundError: the upload is gone. An earlier completion may have worked: look at the key.
            InvalidPartError: a part is missing, differs from its receipt, is too small or out of order.
        """
        ...

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop the upload and its parts. Raises UploadNotFoundError if it is gone already, so it is safe to repeat.

        A part in flight may arrive afterwards and keep the upload: list the parts, and abort again until none is left.
        """
        ...

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        """Unfinished uploads at keys with the prefix. Incomplete on some stores: correctness must not depend on it."""
        ...

    # --- URLs --------------------------------------------------------------------------------------------------------

    def presign(self, method: Method, key: str, expires_in: int, headers: Mapping[str, str] | None = None) -> SignedUrl:
        """A URL that allows the method on the key for ``expires_in`` seconds, 1 to 604,800. Sends no request.

        ``headers``: of the answer to a GET, as ``response-content-disposition`` and ``response-content-type``; of a
        PUT, as ``content-type``. The URL's own ``headers`` are all that the PUT has to send.

        Raises NotSupportedError if the store has no URLs.
        """
        ...
