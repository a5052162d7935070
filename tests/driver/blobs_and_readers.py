"""Blobs and readers of the driver's tests, and what a test does around the driver.

No two chunks of the data are equal: equal ones would hide a wrong offset.
"""

import random
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from tests.doubles import BytesSource, blob
from worker.driver import Driver
from worker.errors import KeyNotFoundError, SourceChangedError, StoreUnavailableError
from worker.stores.blob_values import BlobOptions, UploadEntry
from worker.stores.store import Reader
from worker.transfer.sources.file_source import FileSource
from worker.transfer.sources.source import Source

MakeDriver = Callable[..., Driver]
"""Makes a driver with tiny parts on a store."""


def data(size: int, seed: int = 0) -> bytes:
    """Bytes that differ everywhere; another seed gives others."""
    return random.Random(seed).randbytes(size)


def written(old: bytes | None, offset: int, new: bytes) -> bytes:
    """The write rule, as it stands in the contract."""
    kept = (old or b"")[:offset]
    return kept + bytes(offset - len(kept)) + new


# --- around the driver: what is really in the store ----------------------------------------------------------------


def put(driver: Driver, path: str, content: bytes, options: BlobOptions | None = None) -> None:
    """Store a blob without the driver's help."""
    driver.store.put(driver.key(path), content, options=options)


def content(driver: Driver, path: str) -> bytes | None:
    """What is stored at the path, without the driver's help; None for nothing."""
    return blob(driver.store, driver.key(path))


def identity(driver: Driver, path: str) -> tuple[Any, ...] | None:
    """All that tells one blob from another at the path; None for nothing."""
    try:
        head = driver.store.head(driver.key(path))
    except KeyNotFoundError:
        return None
    return (head.size, head.etag, head.mod_time, head.content_type, head.metadata)


def keys(driver: Driver) -> list[str]:
    """All keys below the driver's root directory, without it."""
    root = driver.key("/x")[:-1]
    return [entry.key[len(root) :] for entry in driver.store.list_page(root).entries]


def uploads(driver: Driver) -> list[UploadEntry]:
    """All unfinished uploads of the bucket."""
    return list(driver.store.list_uploads())


def uploads_at(driver: Driver, path: str) -> list[str]:
    """The ids of the unfinished uploads at exactly this path."""
    key = driver.key(path)
    return [entry.upload_id for entry in driver.store.list_uploads(key) if entry.key == key]


def chain(error: BaseException) -> list[BaseException]:
    """The error and all that led to it."""
    found: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        if (one := todo.pop()) is not None and one not in found:
            found.append(one)
            todo += [one.__cause__, one.__context__]
    return found


# --- readers -------------------------------------------------------------------------------------------------------


class Reading:
    """A sequential reader of the plainest kind: ``read`` and nothing else. Counts what it gave away."""

    def __init__(self, content: bytes, *, most: int | None = None) -> None:
        """``most``: never more than so many bytes at once."""
        self.given = 0
        self.calls = 0
        self._content = content
        self._most = most

    def read(self, size: int, /) -> Any:
        self.calls += 1
        assert self.calls < 1_000_000, "spins"
        size = size if self._most is None else min(size, self._most)
        piece = self._content[self.given : self.given + size]
        self.given += len(piece)
        return piece


class Breaking(Reading):
    """A reader that raises ``error`` instead of going on, or gives ``answer``."""

    def __init__(self, content: bytes, error: BaseException | None = None, *, answer: Any = b"") -> None:
        super().__init__(content)
        self.error = error
        self._answer = answer

    def read(self, size: int, /) -> Any:
        piece = super().read(size)
        if piece:
            return piece
        if self.error is not None:
            raise self.error
        return self._answer


class BreakingSource(BytesSource):
    """A source that cannot be read from byte ``at`` on."""

    def __init__(self, content: bytes, error: Exception, *, at: int) -> None:
        super().__init__(content)
        self._error = error
        self._at = at

    def readinto(self, offset: int, buffer: memoryview) -> None:
        if offset + len(buffer) > self._at:
            raise self._error
        super().readinto(offset, buffer)


class VanishingSource(BytesSource):
    """A source that is replaced once it has been read to the end."""

    def check(self) -> None:
        raise SourceChangedError("it is another one now")


def file_source(directory: Path, content: bytes) -> Source:
    """The bytes as a file's source."""
    file = directory / "source.bin"
    file.write_bytes(content)
    return FileSource.open(file.as_uri(), [directory])


ReaderOf = Callable[[bytes], Any]
"""Makes a reader of some bytes."""


# --- stores that somebody interferes with --------------------------------------------------------------------------


class Once:
    """Does something when one of the verbs is called for the ``at``-th time, and never again: for ``HookedStore``."""

    def __init__(self, verbs: str | Collection[str], action: Callable[[], object], *, at: int = 1) -> None:
        self.done = False
        self._verbs = {verbs} if isinstance(verbs, str) else verbs
        self._action = action
        self._left = at

    def __call__(self, verb: str) -> None:
        if verb not in self._verbs or self.done:
            return
        self._left -= 1
        if self._left == 0:
            self.done = True
            self._action()


class DroppingReader:
    """A reader whose connection breaks off after ``size`` bytes."""

    def __init__(self, reader: Reader, size: int, dropped: Callable[[], object]) -> None:
        self.etag = reader.etag
        self._reader = reader
        self._left = size
        self._dropped = dropped

    def read(self, size: int = -1, /) -> bytes:
        if self._left == 0:
            self._dropped()
            raise StoreUnavailableError("connection reset")
        piece = self._reader.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        self._reader.close()


def total_read(error: BaseException) -> int:
    """What the error says was read from the reader."""
    assert hasattr(error, "total_read"), f"{error!r} does not tell how much was read"
    count: int = error.total_read
    return count
