"""The local store: as strict as S3, and as safe between threads and processes that may be killed at any moment."""

import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Final, Literal

from worker.errors import NotSupportedError, StoreError
from worker.stores import refusals
from worker.stores.blob_values import (
    BlobHead,
    BlobOptions,
    Condition,
    DeleteFailure,
    Limits,
    Page,
    PutReceipt,
    carried,
    normal,
)
from worker.stores.local.blob_files import LocalReader
from worker.stores.local.index_rows import Record, json_of, list_keys
from worker.stores.local.local_blobs import LocalBlobs
from worker.stores.local.local_errors import local_errors
from worker.stores.local.local_uploads import LocalUploads
from worker.stores.store import Body, Reader

_MD5: Final = re.compile(r'"[0-9a-f]{32}"')


class LocalStore:
    """A bucket in a directory that any number of threads and processes of one host may share."""

    name = "local"
    endpoint = ""

    def __init__(
        self, directory: Path, *, limits: Limits | None = None, checksum: str = "crc64nvme",
        now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:  # fmt: skip
        """The directory is made at the first write. ``now`` is the store's clock; a key's times only ever grow."""
        self.bucket = str(directory)
        self.identity = f"/{os.path.realpath(directory)}"
        self.limits = limits or Limits()
        self.checksum = checksum
        self._blobs = LocalBlobs(self.bucket, checksum, now)
        self._index = self._blobs.index
        uploads = LocalUploads(self._blobs, self.limits)
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
        with self._blobs.received(key, body, checksum) as (file, content), local_errors("put", self.bucket, key):
            return self._put(key, file, content, normal(options), condition)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, *, if_match: str | None = None
    ) -> AbstractContextManager[Reader]:
        with local_errors("read", self.bucket, key):
            blob, file = self._blobs.open(key, if_match)
        try:
            refusals.check_offset(self.name, key, offset, size, blob.size)
        except StoreError:
            file.close()
            raise
        left = blob.size - offset
        size = left if size is None else min(size, left)
        return closing(LocalReader(file, offset, size, blob.etag, (self.bucket, key)))

    def head(self, key: str) -> BlobHead:
        with local_errors("look at", self.bucket, key):
            blob = self._blobs.find(key)
        options = blob.blob_options()
        return BlobHead(
            key, blob.size, blob.etag, datetime.fromisoformat(blob.mod_time), options.content_type, options.metadata,
            checksum=blob.checksum, storage_class=options.storage_class
        )  # fmt: skip

    def options_of(self, key: str, *, with_tags: bool = True) -> BlobOptions:
        with local_errors("look at", self.bucket, key):
            options = self._blobs.find(key).blob_options()
        return options if with_tags else replace(options, tags=None)

    def copy(
        self, source_key: str, key: str,
        *, source_if_match: str | None = None, condition: Condition | None = None, options: BlobOptions | None = None
    ) -> PutReceipt:  # fmt: skip
        """See :meth:`~worker.stores.store.Store.copy`. The kernel copies, from a file that stays as it is."""
        refusals.check_key(self.name, key)
        with local_errors(f"copy {source_key!r} to", self.bucket, key):
            blob, source = self._blobs.open(source_key, source_if_match)
            with source:
                refusals.check_copy(self.name, source_key, key, is_unchanged=options is None)
                refusals.check_size(self.name, source_key, blob.size, self.limits)
                # A copy has the MD5 as its ETag, as on S3, and the checksum that is kept of every blob.
                is_known = _MD5.fullmatch(blob.etag) and (blob.checksum or "").startswith(self._blobs.kept or "")
                with self._blobs.copied(source, 0, blob.size, blob if is_known else None) as (file, content):
                    return self._put(key, file, content, carried(blob.blob_options(), options), condition)

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = 1_000) -> Page:
        with local_errors("list", self.bucket), self._index.read() as db:
            return list_keys(db, prefix, delimiter, token, limit)

    def delete_batch(self, keys: Sequence[str], *, if_match: str | None = None) -> list[DeleteFailure]:
        """See :meth:`~worker.stores.store.Store.delete_batch`. All at once; if that fails, one by one."""
        refusals.check_delete(self.name, keys, self.limits)
        try:
            with local_errors("delete", self.bucket, keys[0] if len(keys) == 1 else ""):
                self._blobs.delete(keys, Condition(if_match=if_match))
        except StoreError as error:
            if if_match is not None:
                raise
            if len(keys) > 1:
                return [failure for key in keys for failure in self.delete_batch([key])]
            return [DeleteFailure(key, error.code, str(error)) for key in keys]
        return []

    def presign(self, method: Literal["GET", "HEAD"], key: str, expires_in: int) -> str:
        raise NotSupportedError("local: a blob in a directory has no URL")

    def _put(
        self, key: str, file: FileIO, content: Record, options: BlobOptions, condition: Condition | None
    ) -> PutReceipt:
        with self._index.write() as change:
            return self._blobs.commit(change, key, file, content._replace(options=json_of(options)), condition)
