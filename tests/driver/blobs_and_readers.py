"""What the driver's tests work with: sizes around every boundary, bytes that tell where they belong, and readers.

Parts are tiny, so that a blob of many parts is a few kilobytes. No two chunks of the data are equal: equal ones would
hide a wrong offset. On servers a blob has at most ten parts: Swift reads one a second of those that come after, if they
are that small.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.doubles import BytesSource, blob
from worker.driver import Driver
from worker.errors import KeyNotFoundError, SourceChangedError, StoreUnavailableError
from worker.stores.blob_values import BlobOptions, Limits, UploadEntry
from worker.stores.store import Reader
from worker.transfer.sources.file_source import FileSource
from worker.transfer.upload.server_copy import Copying

MIN = 256  #: bytes; the least that a part may have which is not the last
PART = 1_024  #: bytes; what the driver sends at once
COPYING = Copying(threshold=2 * PART, part_size=PART, threads=2)
LIMITS = Limits(min_part_size=MIN)
BUCKET = "driver-suite"
KINDS: Final = ("memory", "local", "moto", "swift")
AT_HOME: Final = ("memory", "local")  #: those that no request has to travel to

at_home = pytest.mark.parametrize("kind", AT_HOME)
"""For what the driver decides by itself, without asking its store."""


def cases(
    names: str, everywhere: Iterable[Any], more: Iterable[Any] = (), *, files: Iterable[str] | None = None
) -> pytest.MarkDecorator:
    """Parametrize, for all stores, and with some more cases for those at home. A case's id may stand in a mapping.

    With ``files``, each case has the fixture ``reader_of`` give a reader, and on these stores a file as well.
    """

    def params(kinds: Iterable[str], given: Iterable[Any]) -> Iterable[Any]:
        named = given.items() if isinstance(given, Mapping) else ((str(value), value) for value in given)
        for name, value in named:
            values = value if isinstance(value, tuple) else (value,)
            for kind in kinds:
                if files is None:
                    yield pytest.param(kind, *values, id=f"{kind}-{name}")
                    continue
                for reader in ("reader", "file") if kind in files else ("reader",):
                    yield pytest.param(kind, *values, reader, id=f"{kind}-{name}-{reader}")

    columns = ["kind", *(name.strip() for name in names.split(",")), *([] if files is None else ["reader_of"])]
    indirect = [] if files is None else ["reader_of"]
    return pytest.mark.parametrize(columns, [*params(KINDS, everywhere), *params(AT_HOME, more)], indirect=indirect)


both_readers = pytest.mark.parametrize(
    ("kind", "reader_of"),
    [*((kind, "reader") for kind in KINDS), *((kind, "file") for kind in AT_HOME)],
    indirect=["reader_of"],
)
"""Readers on all stores, and files on those at home."""


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


def file_source(directory: Path, content: bytes) -> FileSource:
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
