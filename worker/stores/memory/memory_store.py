"""The memory store: a bucket in a dict, as strict as S3. For tests and for trying things out."""

from bisect import bisect_left
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Literal

from worker.errors import NotSupportedError
from worker.stores.blob_values import (
    BlobHead,
    BlobOptions,
    Condition,
    DeleteFailure,
    KeyEntry,
    Limits,
    Page,
    PutReceipt,
    carried,
    normal,
)
from worker.stores.checksums import FULL_OBJECT_ALGORITHMS, Digests
from worker.stores.listing import page_of
from worker.stores.memory.memory_bucket import MemoryBucket, etag_of, received
from worker.stores.memory.memory_uploads import MemoryUploads
from worker.stores.refusals import check_copy, check_delete, check_key, check_offset, check_size
from worker.stores.store import Body, Reader


class MemoryReader(BytesIO):
    """The bytes of one get."""

    def __init__(self, data: bytes, etag: str) -> None:
        super().__init__(data)
        self.etag = etag


class MemoryStore:
    """A :class:`~worker.stores.store.Store` in this process's memory."""

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
        """``now`` is the store's clock; the times that it gives to blobs and uploads always grow."""
        self.bucket = bucket
        self.identity = f"memory-{id(self):x}/{bucket}"
        self.limits = limits or Limits()
        self.checksum = checksum
        self._bucket = MemoryBucket(bucket, now)
        uploads = MemoryUploads(self._bucket, self.limits)
        self.create_upload = uploads.create_upload
        self.upload_part = uploads.upload_part
        self.copy_part = uploads.copy_part
        self.list_parts = uploads.list_parts
        self.complete_upload = uploads.complete_upload
        self.abort_upload = uploads.abort_upload
        self.list_uploads = uploads.list_uploads

    def warm_up(self) -> None:
        pass

    # --- whole blobs -------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        body: Body | bytes,
        *,
        checksum: str | None = None,
        condition: Condition | None = None,
        options: BlobOptions | None = None,
    ) -> PutReceipt:
        data = received(body, checksum, self.limits, key)
        with self._bucket.lock:
            return self._bucket.commit(key, data, etag_of(data), condition, normal(options))

    def get(
        self, key: str, offset: int = 0, size: int | None = None, *, if_match: str | None = None
    ) -> AbstractContextManager[Reader]:
        blob = self._bucket.blob(key, if_match)
        check_offset(self.name, key, offset, size, len(blob.data))
        end = None if size is None else offset + size
        return closing(MemoryReader(blob.data[offset:end], blob.etag))

    def head(self, key: str) -> BlobHead:
        blob = self._bucket.blob(key)
        kept = FULL_OBJECT_ALGORITHMS.get(self.checksum)
        return BlobHead(
            key=key,
            size=len(blob.data),
            etag=blob.etag,
            mod_time=blob.mod_time,
            content_type=blob.options.content_type,
            metadata=blob.options.metadata,
            checksum=Digests(kept).update(blob.data).checksum(kept) if kept else None,
            storage_class=blob.options.storage_class,
        )

    def options_of(self, key: str, *, with_tags: bool = True) -> BlobOptions:
        options = self._bucket.blob(key).options
        return options if with_tags else replace(options, tags=None)

    def copy(
        self,
        source_key: str,
        key: str,
        *,
        source_if_match: str | None = None,
        condition: Condition | None = None,
        options: BlobOptions | None = None,
    ) -> PutReceipt:
        check_key(self.name, key)
        with self._bucket.lock:
            source = self._bucket.blob(source_key, source_if_match)
            check_copy(self.name, source_key, key, is_unchanged=options is None)
            check_size(self.name, source_key, len(source.data), self.limits)
            return self._bucket.commit(
                key, source.data, etag_of(source.data), condition, carried(source.options, options)
            )

    # --- many keys ---------------------------------------------------------------------------------------------------

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = 1_000) -> Page:
        with self._bucket.lock:
            blobs = dict(self._bucket.blobs)
        keys = sorted((key for key in blobs if key.startswith(prefix)), key=str.encode)

        def entries_from(start: bytes) -> Generator[KeyEntry]:
            for key in keys[bisect_left(keys, start, key=str.encode) :]:
                blob = blobs[key]
                yield KeyEntry(key, len(blob.data), blob.mod_time, blob.etag)

        return replace(page_of(entries_from, prefix, delimiter, token, limit), served_at=self._bucket.now())

    def delete_batch(self, keys: Sequence[str], *, if_match: str | None = None) -> list[DeleteFailure]:
        check_delete(self.name, keys, self.limits)
        with self._bucket.lock:
            if if_match is not None:
                (key,) = keys
                if key in self._bucket.blobs:
                    self._bucket.blob(key, if_match)
            for key in keys:
                self._bucket.blobs.pop(key, None)
        return []

    # --- else --------------------------------------------------------------------------------------------------------

    def presign(self, method: Literal["GET", "HEAD"], key: str, expires_in: int) -> str:
        raise NotSupportedError("memory: a blob in memory has no URL")
