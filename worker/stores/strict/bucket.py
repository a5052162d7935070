"""What a bucket is made of: an index of records, which changes in one step, and files that never change."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO, FileIO
from typing import Any, Final, NamedTuple, Protocol

from worker.stores.blob_values import BlobOptions, Limits, Page, PartReceipt, UploadEntry
from worker.stores.checksums import FULL_OBJECT_ALGORITHMS

#: Open files, as the bucket's ``files`` make them and understand them.
File = FileIO | BytesIO
ALL_PARTS: Final = sys.maxsize


class Record(NamedTuple):
    """A blob, a part of an upload, or as part 0 the upload itself."""

    file: Any = ""  #: what the bucket's ``files`` know the bytes by
    size: int = 0
    etag: str = ""
    checksum: str | None = None  #: "ALGORITHM:base64" of all bytes, if one is kept
    mod_time: datetime = datetime.min.replace(tzinfo=UTC)  #: of an upload: when it was opened
    options: BlobOptions = BlobOptions()  #: of an upload: those that its blob will have

    def receipt(self, part_number: int) -> PartReceipt:
        """As a part."""
        return PartReceipt(part_number, self.size, self.etag, self.checksum)


class Rows(Protocol):
    """What the index holds."""

    def find_blob(self, key: str) -> Record | None:
        """The blob under a key."""
        ...

    def find_parts(self, key: str, upload_id: str, last: int = ALL_PARTS) -> tuple[Record, dict[int, Record]]:
        """An unfinished upload and its parts up to number ``last``, of one moment. Raises UploadNotFoundError."""
        ...

    def list_keys(self, prefix: str, delimiter: str, token: str | None, limit: int) -> Page:
        """One page. Args: those of :meth:`~worker.stores.store.Store.list_page`."""
        ...

    def list_uploads(self, prefix: str) -> list[UploadEntry]:
        """The unfinished uploads to keys that begin with the prefix, by key, then by age."""
        ...


class Change(Rows, Protocol):
    """A transaction. The files of records that it replaces or deletes are removed once it is committed."""

    def add(self, file: File) -> Any:
        """Keep a file. Returns what a record knows it by; without a commit it goes again."""
        ...

    def put_blob(self, key: str, blob: Record) -> None:
        """Put a blob in place of the one under a key."""
        ...

    def delete_blob(self, key: str) -> None:
        """Leave nothing under a key."""
        ...

    def put_part(self, key: str, upload_id: str, number: int, part: Record) -> None:
        """Put a part in place of the one with its number; with 0, open an upload."""
        ...

    def end_upload(self, upload_id: str) -> None:
        """Forget an upload and its parts."""
        ...


class Index(Protocol):
    """Its commits are what readers see."""

    def read(self) -> AbstractContextManager[Rows]:
        """The index as it is. Each call sees one moment of its own."""
        ...

    def write(self, *, is_deletion: bool = False) -> AbstractContextManager[Change]:
        """A transaction alone among all, committed at the end unless there is an error."""
        ...

    def close(self) -> None:
        """Close what is kept open between calls; a call opens it again."""
        ...


class Files(Protocol):
    """They hold the bytes of blobs and parts."""

    def unnamed(self) -> File:
        """A new file, which goes when it is closed unless a change has added it."""
        ...

    def open(self, name: Any, size: int) -> File:
        """A file, to read. Raises FileNotFoundError."""
        ...

    def write(self, file: File, data: bytes | memoryview) -> None:
        """Write all of it at the file's position."""
        ...

    def append_range(self, target: File, source: File, offset: int, size: int) -> None:
        """Copy bytes to the position of a file."""
        ...

    def sync(self, file: File) -> None:
        """Bring the bytes to where a crash does not reach them."""
        ...


@dataclass(frozen=True, slots=True)
class Bucket:
    """The parts of one store."""

    store: str  #: the store's name, for messages
    name: str
    index: Index
    files: Files
    errors: Callable[[str, str], AbstractContextManager[None]]  #: raises what comes from inside as a StoreError
    limits: Limits
    checksum: str  #: as :attr:`~worker.stores.store.Store.checksum`
    now: Callable[[], datetime]

    @property
    def kept(self) -> str | None:
        """The algorithm of the checksum that is kept of every blob, by its name in checksums; None: no checksum is."""
        return FULL_OBJECT_ALGORITHMS.get(self.checksum)
