"""The verbs of a store, over a bucket of our own."""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from typing import Final

from blobferry.checks.url_options import Method
from blobferry.signing.signed_url import SignedUrl
from worker.errors import NotSupportedError, PreconditionFailedError, StoreError
from worker.stores.blob_values import (
    BlobHead,
    BlobOptions,
    Body,
    Condition,
    DeleteFailure,
    Page,
    PutReceipt,
    Reader,
    carried,
    normal,
)
from worker.stores.capabilities import Capabilities, Capability
from worker.stores.strict import refusals
from worker.stores.strict.bucket import Bucket, File, Record
from worker.stores.strict.range_reader import RangeReader
from worker.stores.strict.strict_blobs import StrictBlobs
from worker.stores.strict.strict_uploads import StrictUploads

_MD5: Final = re.compile(r'"[0-9a-f]{32}"')


class StrictStore:
    """A :class:`~worker.stores.store.Store` as strict as S3."""

    endpoint = ""

    def __init__(self, bucket: Bucket, identity: str) -> None:
        """Args: the bucket; the store's ``identity``."""
        self.name = bucket.store
        self.bucket = bucket.name
        self.limits = bucket.limits
        self.identity = identity
        self.checksum = bucket.checksum
        self.capabilities = Capabilities(confirmed=Capability)
        self._index = bucket.index
        self._bucket = bucket
        self._errors = bucket.errors
        self._blobs = StrictBlobs(bucket)
        uploads = StrictUploads(bucket, self._blobs)
        self.create_upload, self.abort_upload = uploads.create_upload, uploads.abort_upload
        self.upload_part, self.copy_part = uploads.upload_part, uploads.copy_part
        self.complete_upload = uploads.complete_upload
        self.list_parts, self.list_uploads = uploads.list_parts, uploads.list_uploads

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        """Close the files that are kept open between calls. The store can still be used: a call opens them again."""
        self._index.close()

    def put(
        self, key: str, body: Body | bytes,
        *, checksum: str | None = None, condition: Condition | None = None, options: BlobOptions | None = None
    ) -> PutReceipt:  # fmt: skip
        refusals.check_key(self.name, key)
        refusals.check_size(self.name, key, len(body), self.limits)
        with self._blobs.received(key, body, checksum) as (file, content), self._errors("put", key):
            return self._put(key, file, content, normal(options), condition)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, *, if_match: str | None = None
    ) -> AbstractContextManager[Reader]:
        with self._errors("read", key):
            blob, file = self._blobs.open(key, if_match)
        try:
            refusals.check_offset(self.name, key, offset, size, blob.size)
        except StoreError:
            file.close()
            raise
        left = blob.size - offset
        size = left if size is None else min(size, left)
        return closing(RangeReader(self._bucket, key, blob.etag, file, offset, size))

    def head(self, key: str) -> BlobHead:
        with self._errors("look at", key):
            blob = self._blobs.find(key)
        options = blob.options
        head = BlobHead(key, blob.size, blob.etag, blob.mod_time, options.content_type, options.metadata)
        return replace(head, checksum=blob.checksum, storage_class=options.storage_class)

    def options_of(self, key: str, *, with_tags: bool = True) -> BlobOptions:
        with self._errors("look at", key):
            options = self._blobs.find(key).options
        return options if with_tags else replace(options, tags=None)

    def copy(
        self, source_key: str, key: str,
        *, source_if_match: str | None = None, condition: Condition | None = None, options: BlobOptions | None = None
    ) -> PutReceipt:  # fmt: skip
        refusals.check_key(self.name, key)
        with self._errors(f"copy {source_key!r} to", key):
            blob, source = self._blobs.open(source_key, source_if_match)
            with source:
                refusals.check_copy(self.name, source_key, key, is_unchanged=options is None)
                refusals.check_size(self.name, source_key, blob.size, self.limits)
                # A copy has the MD5 as its ETag, as on S3, and the checksum that is kept of every blob.
                is_known = _MD5.fullmatch(blob.etag) and (blob.checksum or "").startswith(self._bucket.kept or "")
                with self._blobs.copied(source, 0, blob.size, blob if is_known else None) as (file, content):
                    return self._put(key, file, content, carried(blob.options, options), condition)

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = 1_000) -> Page:
        with self._errors("list", ""), self._index.read() as rows:
            return rows.list_keys(prefix, delimiter, token, limit)

    def delete_batch(
        self, keys: Sequence[str], *, if_match: str | None = None, etags: Mapping[str, str] | None = None
    ) -> list[DeleteFailure]:
        """See :meth:`~worker.stores.store.Store.delete_batch`. All at once; if that fails, one by one."""
        self.limits.check_delete(self.name, keys)
        wanted = (etags or {}) if if_match is None else dict.fromkeys(keys, if_match)
        try:
            with self._errors("delete", keys[0] if len(keys) == 1 else ""):
                changed = self._blobs.delete(keys, wanted)
        except StoreError as error:
            if if_match is not None:
                raise
            if len(keys) > 1:
                return [failure for key in keys for failure in self.delete_batch([key], etags=wanted)]
            return [DeleteFailure(key, error.code, str(error)) for key in keys]
        if changed and if_match is not None:
            raise PreconditionFailedError(changed[0].message)
        return changed

    def presign(self, method: Method, key: str, expires_in: int, headers: Mapping[str, str] | None = None) -> SignedUrl:
        raise NotSupportedError(f"{self.name}: a blob has no URL: there is no server that it could name")

    def _put(
        self, key: str, file: File, content: Record, options: BlobOptions, condition: Condition | None
    ) -> PutReceipt:
        with self._index.write() as change:
            return self._blobs.commit(change, key, file, content._replace(options=options), condition)
