"""Multipart uploads of the memory store."""

import uuid
from collections.abc import Iterator, Sequence

from worker.errors import UploadNotFoundError
from worker.stores.blob_values import BlobOptions, Condition, PartReceipt, PutReceipt, UploadEntry, normal
from worker.stores.checksums import multipart_etag
from worker.stores.memory.memory_bucket import (
    MemoryBucket,
    MemoryUpload,
    check_whole,
    etag_of,
    received,
)
from worker.stores.refusals import (
    check_key,
    check_part_number,
    check_part_range,
    check_parts,
    check_whole_size,
)
from worker.stores.store import Body


class MemoryUploads(MemoryBucket):
    """The verbs of an upload."""

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        """See :meth:`~worker.stores.store.Store.create_upload`."""
        check_key(self.name, key)
        upload_id = uuid.uuid4().hex
        with self._lock:
            self._uploads[upload_id] = MemoryUpload(key, self._tick(), normal(options))
        return upload_id

    def upload_part(
        self, key: str, upload_id: str, part_number: int, body: Body | bytes, *, checksum: str | None = None
    ) -> PartReceipt:
        """See :meth:`~worker.stores.store.Store.upload_part`."""
        check_part_number(self.name, part_number, self.limits)
        self._upload(key, upload_id)
        data = received(body, checksum, self.limits, key)
        receipt = PartReceipt(part_number, len(data), etag_of(data), checksum)
        with self._lock:
            upload = self._upload(key, upload_id)  # it may have been completed or aborted while the body was read
            upload.data[part_number] = data
            upload.receipts[part_number] = receipt
        return receipt

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
        """See :meth:`~worker.stores.store.Store.copy_part`."""
        self._upload(key, upload_id)
        source = self._blob(source_key, source_if_match)
        check_part_range(self.name, source_key, offset, size, len(source.data))
        return self.upload_part(key, upload_id, part_number, source.data[offset : offset + size])

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        """See :meth:`~worker.stores.store.Store.list_parts`."""
        with self._lock:
            receipts = self._upload(key, upload_id).receipts
            return iter([receipts[number] for number in sorted(receipts)])

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
        """See :meth:`~worker.stores.store.Store.complete_upload`. A refused upload stays open."""
        with self._lock:
            upload = self._upload(key, upload_id)
            check_parts(self.name, key, parts, upload.receipts, self.limits)
            data = b"".join(upload.data[part.part_number] for part in parts)
            check_whole_size(self.name, key, len(data), size)
            check_whole(data, checksum, key)
            etag = multipart_etag(upload.receipts[part.part_number].etag for part in parts)
            receipt = self._commit(key, data, f'"{etag}"', condition, upload.options)
            del self._uploads[upload_id]
            return receipt

    def abort_upload(self, key: str, upload_id: str) -> None:
        """See :meth:`~worker.stores.store.Store.abort_upload`."""
        with self._lock:
            self._upload(key, upload_id)
            del self._uploads[upload_id]

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        """See :meth:`~worker.stores.store.Store.list_uploads`. By key, then by age."""
        with self._lock:
            found = [
                UploadEntry(upload.key, upload_id, upload.opened_at)
                for upload_id, upload in self._uploads.items()
                if upload.key.startswith(prefix)
            ]
        return iter(sorted(found, key=lambda entry: (entry.key.encode(), entry.opened_at)))

    def _upload(self, key: str, upload_id: str) -> MemoryUpload:
        with self._lock:
            upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise UploadNotFoundError(f"memory: no upload {upload_id!r} to {key!r}: completed, aborted or never opened")
        return upload
