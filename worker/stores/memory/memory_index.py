"""The index and the files of a bucket in memory."""

import threading
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, Self

from worker.stores.blob_values import KeyEntry, Page, UploadEntry
from worker.stores.strict.bucket import ALL_PARTS, File, Record
from worker.stores.strict.listing import page_of
from worker.stores.strict.refusals import upload_not_found


class MemoryIndex:
    """Dicts, behind one lock. Records hold their bytes themselves. All checks come before the first change."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """``now`` is the store's clock; :meth:`next_time` grows even if that stands still or goes back."""
        self.blobs: dict[str, Record] = {}
        self._uploads: dict[str, tuple[str, dict[int, Record]]] = {}
        self._lock = threading.RLock()
        self._now = now
        self._last_time = datetime.min.replace(tzinfo=UTC)

    @contextmanager
    def read(self) -> Iterator[Self]:
        with self._lock:
            yield self

    @contextmanager
    def write(self, *, is_deletion: bool = False) -> Iterator[Self]:
        with self._lock:
            yield self

    def close(self) -> None:
        pass

    def add(self, file: File) -> bytes:
        assert isinstance(file, BytesIO)
        return file.getvalue()

    def find_blob(self, key: str) -> Record | None:
        return self.blobs.get(key)

    def put_blob(self, key: str, blob: Record) -> None:
        self.blobs[key] = blob

    def delete_blob(self, key: str) -> None:
        self.blobs.pop(key, None)

    def find_parts(self, key: str, upload_id: str, last: int = ALL_PARTS) -> tuple[Record, dict[int, Record]]:
        opened_for, held = self._uploads.get(upload_id, (None, {}))
        if opened_for != key:
            raise upload_not_found("memory", key, upload_id)
        return held[0], {number: held[number] for number in sorted(held)[1:]} if last else {}

    def put_part(self, key: str, upload_id: str, number: int, part: Record) -> None:
        self._uploads.setdefault(upload_id, (key, {}))[1][number] = part

    def end_upload(self, upload_id: str) -> None:
        del self._uploads[upload_id]

    def list_uploads(self, prefix: str) -> list[UploadEntry]:
        found = [UploadEntry(key, upload_id, held[0].mod_time) for upload_id, (key, held) in self._uploads.items()]
        found = [upload for upload in found if upload.key.startswith(prefix)]
        return sorted(found, key=lambda upload: (upload.key.encode(), upload.opened_at))

    def list_keys(self, prefix: str, delimiter: str, token: str | None, limit: int) -> Page:
        keys = sorted((key for key in self.blobs if key.startswith(prefix)), key=str.encode)

        def entries_from(start: bytes) -> Generator[KeyEntry]:
            for key in keys[bisect_left(keys, start, key=str.encode) :]:
                blob = self.blobs[key]
                yield KeyEntry(key, blob.size, blob.mod_time, blob.etag)

        return replace(page_of(entries_from, prefix, delimiter, token, limit), served_at=self._now())

    def next_time(self) -> datetime:
        """A time of the store's clock, later than all earlier ones."""
        with self._lock:
            self._last_time = max(self._now(), self._last_time + timedelta(microseconds=1))
            return self._last_time


class MemoryFiles:
    """Files that are nothing but their bytes."""

    def unnamed(self) -> BytesIO:
        return BytesIO()

    def open(self, name: Any, size: int) -> BytesIO:
        return BytesIO(name)

    def write(self, file: File, data: bytes | memoryview) -> None:
        file.write(data)

    def append_range(self, target: File, source: File, offset: int, size: int) -> None:
        source.seek(offset)
        target.write(source.read(size))

    def sync(self, file: File) -> None:
        pass
