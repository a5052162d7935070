"""A store that counts what it is sent and keeps none of it: for blobs that no machine of ours could hold."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from worker.errors import InvalidPartError, KeyNotFoundError, NotSupportedError, UploadNotFoundError
from worker.stores.blob_values import (
    BlobHead,
    BlobOptions,
    Condition,
    DeleteFailure,
    KeyEntry,
    Limits,
    Page,
    PartReceipt,
    PutReceipt,
    UploadEntry,
)
from worker.stores.store import Body, Reader
from worker.units import MIB


def by_length(body: Body | bytes) -> None:
    """Take a body's word for how long it is."""


def by_reading(body: Body | bytes) -> None:
    """Read it to its end, as a socket would, and keep nothing."""
    if isinstance(body, bytes):
        return
    body.seek(0)
    count = 0
    while piece := body.read(MIB):
        count += len(piece)
    assert count == len(body), "a body that is not as long as it says"


class CountingStore:
    """One bucket. Blobs and parts are sizes; ETags are numbers, so that nothing has to be read for them."""

    name = "counting"
    bucket = "counting"
    endpoint = ""
    identity = "counting"

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        take: Callable[[Body | bytes], None] = by_length,
        checksum: str = "none",
    ) -> None:
        self.limits = limits or Limits()
        self.checksum = checksum
        self.calls: list[str] = []
        self.blobs: dict[str, BlobHead] = {}
        self.uploads: dict[str, dict[int, PartReceipt]] = {}
        self.completed: list[list[PartReceipt]] = []
        self._keys: dict[str, str] = {}
        self._take = take
        self._lock = threading.Lock()
        self._number = 0

    def warm_up(self) -> None:
        pass

    def pretend(self, key: str, size: int) -> None:
        """Show a blob of this size."""
        self._publish(key, size)

    def _publish(self, key: str, size: int) -> PutReceipt:
        with self._lock:
            self._number += 1
            etag = f'"{self._number}"'
            self.blobs[key] = BlobHead(key, size, etag, datetime.now(UTC))
        return PutReceipt(etag)

    def _called(self, verb: str) -> None:
        with self._lock:
            self.calls.append(verb)

    def put(
        self,
        key: str,
        body: Body | bytes,
        *,
        checksum: str | None = None,
        condition: Condition | None = None,
        options: BlobOptions | None = None,
    ) -> PutReceipt:
        self._called("put")
        self._take(body)
        return self._publish(key, len(body))

    def get(
        self, key: str, offset: int = 0, size: int | None = None, *, if_match: str | None = None
    ) -> AbstractContextManager[Reader]:
        raise NotSupportedError("nothing was kept")

    def head(self, key: str) -> BlobHead:
        self._called("head")
        if key not in self.blobs:
            raise KeyNotFoundError(key)
        return self.blobs[key]

    def options_of(self, key: str, **_: Any) -> BlobOptions:
        self._called("options_of")
        return BlobOptions()

    def list_page(self, prefix: str, *, delimiter: str = "", token: str | None = None, limit: int = 1_000) -> Page:
        self._called("list_page")
        found = sorted(key for key in self.blobs if key.startswith(prefix))
        return Page(
            [KeyEntry(key, self.blobs[key].size, self.blobs[key].mod_time, self.blobs[key].etag) for key in found],
            [],
            None,
        )

    def delete_batch(self, keys: Sequence[str], *, if_match: str | None = None) -> list[DeleteFailure]:
        self._called("delete_batch")
        for key in keys:
            self.blobs.pop(key, None)
        return []

    def copy(self, source_key: str, key: str, **_: Any) -> PutReceipt:
        self._called("copy")
        return self._publish(key, self.head(source_key).size)

    def create_upload(self, key: str, *, options: BlobOptions | None = None) -> str:
        self._called("create_upload")
        with self._lock:
            upload_id = f"upload-{len(self._keys)}"
            self.uploads[upload_id], self._keys[upload_id] = {}, key
        return upload_id

    def _receive(self, upload_id: str, part_number: int, size: int) -> PartReceipt:
        assert 1 <= part_number <= self.limits.max_parts
        assert size <= self.limits.max_part_size
        receipt = PartReceipt(part_number, size, f'"part-{part_number}"')
        with self._lock:
            self.uploads[upload_id][part_number] = receipt
        return receipt

    def upload_part(
        self, key: str, upload_id: str, part_number: int, body: Body | bytes, *, checksum: str | None = None
    ) -> PartReceipt:
        self._called("upload_part")
        self._take(body)
        return self._receive(upload_id, part_number, len(body))

    def copy_part(
        self, key: str, upload_id: str, part_number: int, source_key: str, offset: int, size: int, **_: Any
    ) -> PartReceipt:
        self._called("copy_part")
        assert offset + size <= self.blobs[source_key].size
        return self._receive(upload_id, part_number, size)

    def list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        self._called("list_parts")
        if upload_id not in self.uploads:
            raise UploadNotFoundError(upload_id)
        return iter(sorted(self.uploads[upload_id].values(), key=lambda part: part.part_number))

    def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[PartReceipt], *, size: int | None = None, **_: Any
    ) -> PutReceipt:
        self._called("complete_upload")
        if any(part.size < self.limits.min_part_size for part in parts[:-1]):
            raise InvalidPartError("a part is too small")
        total = sum(part.size for part in parts)
        assert size in (None, total)
        self.completed.append(list(parts))
        del self.uploads[upload_id]
        return self._publish(key, total)

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._called("abort_upload")
        del self.uploads[upload_id]

    def list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        return iter([UploadEntry(self._keys[each], each, datetime.now(UTC)) for each in self.uploads])

    def presign(self, method: str, key: str, expires_in: int) -> str:
        raise NotSupportedError("no URLs")


@dataclass
class Endless:
    """A source, or part of one, of any size. It leaves buffers as they are: nobody looks at the bytes."""

    size: int
    url: str = "endless:"
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    largest: int = 0  #: bytes that it was asked for at once

    def readinto(self, offset: int, buffer: memoryview) -> None:
        assert offset + len(buffer) <= self.size
        self.largest = max(self.largest, len(buffer))

    def check(self) -> None:
        """It never changes."""

    def close(self) -> None:
        """Nothing to give back."""


class EndlessReader:
    """A reader of any number of bytes, which are the same ones again and again."""

    def __init__(self, size: int) -> None:
        self.given = 0
        self.largest = 0
        self._size = size
        self._piece = bytes(MIB)

    def read(self, size: int, /) -> bytes | memoryview:
        self.largest = max(self.largest, size)
        size = min(size, MIB, self._size - self.given)
        self.given += size
        return self._piece if size == MIB else self._piece[:size]
