"""Blobs and readers of the driver's tests, and what a test does around the driver.

No two chunks of the data are equal: equal ones would hide a wrong offset.
"""

import random
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.doubles import BytesSource, WrappedStore, blob
from worker.driver import Driver
from worker.errors import KeyNotFoundError, SourceChangedError, StoreUnavailableError
from worker.stores.blob_values import BlobOptions, Reader, UploadEntry
from worker.stores.store import Store
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


def blob_of(size: int | None, seed: int = 1) -> bytes | None:
    """What is there before a test; None for nothing."""
    return None if size is None else data(size, seed)


# --- around the driver: what is really in the store ----------------------------------------------------------------


def put(driver: Driver, path: str, content: bytes | None, options: BlobOptions | None = None) -> None:
    """Store a blob without the driver's help; None for nothing."""
    if content is not None:
        driver.store.put(driver.key(path), content, options=options)


def content(driver: Driver, path: str) -> bytes | None:
    """What is stored at the path, without the driver's help; None for nothing."""
    return blob(driver.store, driver.key(path))


def stored(driver: Driver) -> dict[str, bytes | None]:
    """All that is stored below the driver's root directory, by key."""
    return {key: content(driver, f"/{key}") for key in keys(driver)}


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


def chain(error: BaseException | None) -> Iterator[BaseException | None]:
    """The error and all that led to it."""
    if error is not None:
        yield error
        yield from chain(error.__cause__)
        yield from chain(error.__context__)


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
        if not piece and self.error is not None:
            raise self.error
        return piece or self._answer


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
        self._left -= verb in self._verbs
        if self._left == 0 and not self.done:
            self.done = True
            self._action()


class DroppingStore(WrappedStore):
    """Each connection of ``sizes`` breaks off after so many bytes, and ``dropped`` happens; the others do not."""

    def __init__(self, store: Store, *sizes: int, dropped: Callable[[], object] = lambda: None) -> None:
        super().__init__(store)
        self.opened: list[DroppingReader] = []
        self.offsets: list[int] = []
        self.sizes = list(sizes)
        self._dropped = dropped

    def _do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        answer = super()._do(name, args, keywords)
        if name != "get":
            return answer
        size = self.sizes.pop(0) if self.sizes else sys.maxsize
        self.opened.append(DroppingReader(answer.__enter__(), size, self._dropped))
        self.offsets.append(args[1] if len(args) > 1 else 0)
        return closing(self.opened[-1])

    def open_connections(self) -> int:
        """How many nobody has given back."""
        return sum(reader.is_open for reader in self.opened)


class DroppingReader:
    """A reader whose connection breaks off after ``size`` bytes, and that tells whether it is still open."""

    def __init__(self, reader: Reader, size: int, dropped: Callable[[], object]) -> None:
        self.etag = reader.etag
        self.is_open = True
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
        self.is_open = False
        self._reader.close()


def total_read(error: BaseException) -> int:
    """What the error says was read from the reader."""
    count: int = error.total_read  # type: ignore[attr-defined]
    return count
