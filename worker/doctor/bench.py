"""A bench for testing a store: blobs and uploads at new keys below a prefix, all of them removed at the end."""

from dataclasses import replace
from functools import cached_property
from io import BytesIO
from itertools import count
from typing import Final

from worker.errors import NotSupportedError, PermissionDeniedError, PreconditionFailedError, StoreError
from worker.stores.blob_values import BlobHead, BlobOptions, Condition, PartReceipt
from worker.stores.checksums import checksum_of, join_checksums
from worker.stores.store import Store
from worker.transfer.upload.abort import abort_upload

ABSENT: Final = Condition(if_none_match=True)
SMALL: Final = b"Blobferry's doctor was here, and is about to remove this."
OPTIONS: Final = BlobOptions(metadata={"blobferry-probe": "1"})


class _Body(BytesIO):
    """Bytes as a body."""

    def __len__(self) -> int:
        return self.getbuffer().nbytes


class Bench:
    """Makes blobs and uploads at keys of its own, and removes them."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.store = store
        self.prefix = prefix
        self._numbers = count(1)
        self._keys: list[str] = []
        self._uploads: list[tuple[str, str]] = []

    def key(self) -> str:
        """A new key, at which there is no blob."""
        self._keys.append(f"{self.prefix}/{next(self._numbers)}")
        return self._keys[-1]

    def blob(self) -> BlobHead:
        """A new small blob."""
        key = self.key()
        try:
            self._put(key)
        except PermissionDeniedError:  # nothing was written, and deleting may not be permitted either
            self._keys.remove(key)
            raise
        return self.store.head(key)

    def blob_in_parts(self) -> BlobHead:
        """A new small blob, uploaded as a single part."""
        key = self.key()
        self.upload(key, SMALL)
        return self.store.head(key)

    @cached_property
    def large(self) -> BlobHead:
        """A blob of two parts, so more than 5 MiB on S3, which copies ranges of no smaller blob."""
        key = self.key()
        self.upload(key, self.first_part, SMALL)
        return self.store.head(key)

    @cached_property
    def first_part(self) -> bytes:
        """A part of the smallest size that the store allows for a part that is not the last."""
        size = max(self.store.limits.min_part_size, len(SMALL))
        return (b"0123456789" * (size // 10 + 1))[:size]

    def open(self, key: str) -> str:
        """Open an upload and return its id."""
        upload_id = self.store.create_upload(key, options=OPTIONS)
        self._uploads.append((key, upload_id))
        return upload_id

    @property
    def has_whole_checksums(self) -> bool:
        """Whether the checksums of parts can be joined to one of the whole blob."""
        return self.store.checksum in ("crc64nvme", "crc32c")

    def upload(self, key: str, *parts: bytes, condition: Condition | None = None, whole: bytes | None = None) -> None:
        """Upload a blob in parts. ``whole``: send the checksum of these bytes instead of that of the parts."""
        upload_id = self.open(key)
        sent = [self._part(key, upload_id, number, part) for number, part in enumerate(parts, 1)]
        checksum = join_checksums((self.checksum(part), len(part)) for part in ([whole] if whole else parts))
        size = sum(len(part) for part in parts)
        self.store.complete_upload(key, upload_id, sent, checksum=checksum, size=size, condition=condition)
        self._uploads.remove((key, upload_id))

    def checksum(self, content: bytes) -> str | None:
        """The checksum in the store's algorithm; None if the store uses none."""
        return checksum_of(_Body(content), self.store.checksum)

    def read(self, key: str, offset: int = 0, size: int | None = None, *, if_match: str | None = None) -> bytes:
        """The bytes at the key."""
        with self.store.get(key, offset, size, if_match=if_match) as reader:
            return reader.read()

    def clean(self) -> str | None:
        """Remove everything. Returns what could not be removed and why, or None."""
        if not self._keys:
            return None
        problems = []
        for key, upload_id in {*self._uploads, *self._listed_uploads()}:
            try:
                abort_upload(self.store, key, upload_id)
            except StoreError as error:
                problems.append(str(error))
        try:  # by key, since a listing may lag behind
            failures = self.store.delete_batch(self._keys)
            problems += [f"{failure.key}: {failure.code}: {failure.message}" for failure in failures]
        except StoreError as error:
            problems.append(str(error))
        return "; ".join(problems) or None

    def _listed_uploads(self) -> list[tuple[str, str]]:
        try:  # finds uploads whose Create went unanswered; all below the prefix are ours
            return [(entry.key, entry.upload_id) for entry in self.store.list_uploads(f"{self.prefix}/")]
        except StoreError:
            return []

    def _put(self, key: str) -> None:
        try:  # with the condition, as jobs do, since a bucket policy may demand it
            self.store.put(key, SMALL, condition=ABSENT, options=OPTIONS)
        except (NotSupportedError, PreconditionFailedError):
            self.store.put(key, SMALL, options=OPTIONS)

    def _part(self, key: str, upload_id: str, number: int, content: bytes) -> PartReceipt:
        checksum = self.checksum(content)
        receipt = self.store.upload_part(key, upload_id, number, content, checksum=checksum)
        return replace(receipt, checksum=checksum)
