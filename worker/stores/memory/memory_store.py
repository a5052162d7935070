"""The memory store: a real store in a dict, as strict as S3 where S3 is strict. For tests and for trying things out."""

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from io import BytesIO
from typing import Literal

from worker.errors import NotSupportedError
from worker.stores.blob_values import (
    BlobHead,
    BlobOptions,
    Condition,
    DeleteFailure,
    KeyEntry,
    Page,
    PutReceipt,
    carried,
    normal,
)
from worker.stores.checksums import FULL_OBJECT_ALGORITHMS, Digests
from worker.stores.memory.memory_bucket import etag_of, received
from worker.stores.memory.memory_uploads import MemoryUploads
from worker.stores.refusals import check_copy, check_delete, check_key, check_offset, check_size
from worker.stores.store import Body, Reader


class MemoryReader(BytesIO):
    """The bytes of one get."""

    def __init__(self, data: bytes, etag: str) -> None:
        super().__init__(data)
        self.etag = etag


class MemoryStore(MemoryUploads):
    """Whole blobs and listings; uploads and what is stored are in its bases."""

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
        """See :meth:`~worker.stores.store.Store.put`."""
        data = received(body, checksum, self.limits, key)
        with self._lock:
            return self._commit(key, data, etag_of(data), condition, normal(options))

    def get(
        self, key: str, offset: int = 0, size: int | None = None, *, if_match: str | None = None
    ) -> AbstractContextManager[Reader]:
        """See :meth:`~worker.stores.store.Store.get`."""
        blob = self._blob(key, if_match)
        check_offset(self.name, key, offset, size, len(blob.data))
        end = None if size is None else offset + size
        return closing(MemoryReader(blob.data[offset:end], blob.etag))

    def head(self, key: str) -> BlobHead:
        """See :meth:`~worker.stores.store.Store.head`."""
        blob = self._blob(key)
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
        """See :meth:`~worker.stores.store.Store.options_of`."""
        options = self._blob(key).options
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
        """See :meth:`~worker.stores.store.Store.copy`."""
        check_key(self.name, key)
        with self._lock:
            source = self._blob(source_key, source_if_match)
            check_copy(self.name, source_key, key, is_unchanged=options is None)
            check_size(self.name, source_key, len(source.data), self.limits)
            return self._commit(key, source.data, etag_of(source.data), condition, carried(source.options, options))

    # --- many keys ---------------------------------------------------------------------------------------------------

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = 1_000) -> Page:
        """See :meth:`~worker.stores.store.Store.list_page`. The token is the last key or common prefix given out."""
        with self._lock:
            blobs = dict(self._blobs)
        entries: list[KeyEntry] = []
        prefixes: list[str] = []
        keys = sorted((key for key in blobs if key.startswith(prefix)), key=str.encode)
        last = token or ""
        for key in keys[bisect_left(keys, last.encode(), key=str.encode) :]:
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            item = key if end < 0 else key[: end + len(delimiter)]
            if item == last:
                continue
            if len(entries) + len(prefixes) >= limit:
                return Page(entries, prefixes, last, self._now())
            if end < 0:
                blob = blobs[key]
                entries.append(KeyEntry(key, len(blob.data), blob.mod_time, blob.etag))
            else:
                prefixes.append(item)
            last = item
        return Page(entries, prefixes, None, self._now())

    def delete_batch(self, keys: Sequence[str], *, if_match: str | None = None) -> list[DeleteFailure]:
        """See :meth:`~worker.stores.store.Store.delete_batch`."""
        check_delete(self.name, keys, self.limits)
        with self._lock:
            if if_match is not None:
                (key,) = keys
                if key in self._blobs:
                    self._blob(key, if_match)
            for key in keys:
                self._blobs.pop(key, None)
        return []

    # --- else --------------------------------------------------------------------------------------------------------

    def presign(self, method: Literal["GET", "HEAD"], key: str, expires_in: int) -> str:
        """There is no server that a URL could name."""
        raise NotSupportedError("memory: a blob in memory has no URL")
