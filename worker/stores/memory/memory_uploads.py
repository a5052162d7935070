"""Multipart uploads of the memory store."""

import uuid
from collections.abc import Iterator, Sequence

from worker.stores.blob_values import BlobOptions, Condition, Limits, PartReceipt, PutReceipt, UploadEntry, normal
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
    upload_not_found,
)
from worker.stores.store import Body


class MemoryUploads:
    """The upload methods of :class:`~worker.stores.store.Store`. An upload whose completion is refused stays open."""

    def __init__(self, bucket: MemoryBucket, limits: Limits) -> None:
        self._bucket = bucket
        self._limits = limits

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        check_key("memory", key)
        upload_id = uuid.uuid4().hex
        with self._bucket.lock:
            self._bucket.uploads[upload_id] = MemoryUpload(key, self._bucket.next_time(), normal(options))
        return upload_id

    def upload_part(
        self, key: str, upload_id: str, part_number: int, body: Body | bytes, *, checksum: str | None = None
    ) -> PartReceipt:
        check_part_number("memory", part_number, self._limits)
        self._upload(key, upload_id)
        data = received(body, checksum, self._limits, key)
        receipt = PartReceipt(part_number, len(data), etag_of(data), checksum)
        with self._bucket.lock:
            upload = self._upload(key, upload_id)  # again: the upload may have ended while the body was read
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
        self._upload(key, upload_id)
        source = self._bucket.blob(source_key, source_if_match)
        check_part_range("memory", source_key, offset, size, len(source.data))
        return self.upload_part(key, upload_id, part_number, source.data[offset : offset + size])

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        with self._bucket.lock:
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
        with self._bucket.lock:
            upload = self._upload(key, upload_id)
            check_parts("memory", key, parts, upload.receipts, self._limits)
            data = b"".join(upload.data[part.part_number] for part in parts)
            check_whole_size("memory", key, len(data), size)
            check_whole(data, checksum, key)
            etag = multipart_etag(upload.receipts[part.part_number].etag for part in parts)
            receipt = self._bucket.commit(key, data, f'"{etag}"', condition, upload.options)
            del self._bucket.uploads[upload_id]
            return receipt

    def abort_upload(self, key: str, upload_id: str) -> None:
        with self._bucket.lock:
            self._upload(key, upload_id)
            del self._bucket.uploads[upload_id]

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        with self._bucket.lock:
            found = [
                UploadEntry(upload.key, upload_id, upload.opened_at)
                for upload_id, upload in self._bucket.uploads.items()
                if upload.key.startswith(prefix)
            ]
        return iter(sorted(found, key=lambda entry: (entry.key.encode(), entry.opened_at)))

    def _upload(self, key: str, upload_id: str) -> MemoryUpload:
        with self._bucket.lock:
            upload = self._bucket.uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise upload_not_found("memory", key, upload_id)
        return upload
