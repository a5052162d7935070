"""A store that counts what it is sent and keeps none of it: for blobs that no machine of ours could hold."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

from tests.doubles import WrappedStore
from worker.errors import InvalidPartError, KeyNotFoundError, NotSupportedError, UploadNotFoundError
from worker.stores.blob_values import (
    BlobHead,
    BlobOptions,
    Body,
    DeleteFailure,
    KeyEntry,
    Limits,
    Page,
    PartReceipt,
    PutReceipt,
    UploadEntry,
)
from worker.stores.memory.memory_store import MemoryStore
from worker.units import MIB

PIECE: Final = bytes(MIB)


def by_length(body: Body | bytes) -> None:
    """Take a body's word for how long it is."""


def by_reading(body: Body | bytes) -> None:
    """Read it to its end, as a socket would, and keep nothing."""
    if isinstance(body, bytes):
        return
    body.seek(0)
    count = sum(len(piece) for piece in iter(lambda: body.read(MIB), b""))
    assert count == len(body), "a body that is not as long as it says"


class CountingStore(WrappedStore):
    """One bucket. Blobs and parts are sizes; ETags are numbers, so that nothing has to be read for them."""

    def __init__(
        self, limits: Limits | None = None, *, take: Callable[[Body | bytes], None] = by_length, checksum: str = "none"
    ) -> None:
        super().__init__(MemoryStore("counting"))
        self.limits, self.checksum = limits or Limits(), checksum
        self.calls: list[str] = []
        self.blobs: dict[str, BlobHead] = {}
        self.uploads: dict[str, dict[int, PartReceipt]] = {}
        self.completed: list[list[PartReceipt]] = []
        self._take = take
        self._lock = threading.Lock()
        self._numbers = count(1)

    def pretend(self, key: str, size: int) -> PutReceipt:
        """Show a blob of this size."""
        etag = f'"{next(self._numbers)}"'
        self.blobs[key] = BlobHead(key, size, etag, datetime.now(UTC))
        return PutReceipt(etag)

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Answer by the method of the verb's name below; the store knows no other verbs."""
        with self._lock:
            self.calls.append(name)
        if name in ("put", "upload_part"):
            self._take(args[-1])
        with self._lock:
            return getattr(self, f"_{name}")(*args, **keywords)

    def _put(self, key: str, body: Body | bytes, **_: Any) -> PutReceipt:
        return self.pretend(key, len(body))

    def _get(self, *_: Any, **__: Any) -> Any:
        raise NotSupportedError("nothing was kept")

    def _head(self, key: str) -> BlobHead:
        if key not in self.blobs:
            raise KeyNotFoundError(key)
        return self.blobs[key]

    def _options_of(self, key: str, **_: Any) -> BlobOptions:
        return BlobOptions()

    def _list_page(self, prefix: str, **_: Any) -> Page:
        found = [head for key, head in sorted(self.blobs.items()) if key.startswith(prefix)]
        return Page([KeyEntry(head.key, head.size, head.mod_time, head.etag) for head in found], [], None)

    def _delete_batch(self, keys: Sequence[str], **_: Any) -> list[DeleteFailure]:
        for key in keys:
            self.blobs.pop(key, None)
        return []

    def _copy(self, source_key: str, key: str, **_: Any) -> PutReceipt:
        return self.pretend(key, self._head(source_key).size)

    def _create_upload(self, key: str, **_: Any) -> str:
        upload_id = f"{next(self._numbers)} {key}"
        self.uploads[upload_id] = {}
        return upload_id

    def _receive(self, upload_id: str, part_number: int, size: int) -> PartReceipt:
        assert 1 <= part_number <= self.limits.max_parts
        assert size <= self.limits.max_part_size
        receipt = self.uploads[upload_id][part_number] = PartReceipt(part_number, size, f'"part-{part_number}"')
        return receipt

    def _upload_part(self, key: str, upload_id: str, part_number: int, body: Body | bytes, **_: Any) -> PartReceipt:
        return self._receive(upload_id, part_number, len(body))

    def _copy_part(
        self, key: str, upload_id: str, part_number: int, source_key: str, offset: int, size: int, **_: Any
    ) -> PartReceipt:
        assert offset + size <= self.blobs[source_key].size
        return self._receive(upload_id, part_number, size)

    def _list_parts(self, key: str, upload_id: str) -> Iterator[PartReceipt]:
        if upload_id not in self.uploads:
            raise UploadNotFoundError(upload_id)
        return iter(sorted(self.uploads[upload_id].values(), key=lambda part: part.part_number))

    def _complete_upload(
        self, key: str, upload_id: str, parts: Sequence[PartReceipt], *, size: int | None = None, **_: Any
    ) -> PutReceipt:
        if any(part.size < self.limits.min_part_size for part in parts[:-1]):
            raise InvalidPartError("a part is too small")
        total = sum(part.size for part in parts)
        assert size in (None, total)
        self.completed.append(list(parts))
        del self.uploads[upload_id]
        return self.pretend(key, total)

    def _abort_upload(self, key: str, upload_id: str) -> None:
        del self.uploads[upload_id]

    def _list_uploads(self, prefix: str = "") -> Iterator[UploadEntry]:
        return iter([UploadEntry(each.partition(" ")[2], each, datetime.now(UTC)) for each in self.uploads])


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


@dataclass
class EndlessReader:
    """A reader of any number of bytes, which are the same ones again and again."""

    size: int
    given: int = 0

    def read(self, size: int, /) -> bytes | memoryview:
        size = min(size, MIB, self.size - self.given)
        self.given += size
        return PIECE[:size]
