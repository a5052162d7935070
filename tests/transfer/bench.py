"""A bench for uploads: an engine, a store in memory and a job's checkpoint; and doubles that count, tell and stop."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from tests.doubles import BytesSource, RecordingStore, blob, unfinished, write
from worker.driver import Driver
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, MemoryCheckpoint, SavedUpload
from worker.transfer.sources.source import Source
from worker.transfer.stop import Interrupted
from worker.transfer.upload.engine import Engine

PART = 10
KEY = "videos/7.mp4"
OLD = b"the old blob"


def content(size: int) -> bytes:
    """Bytes of which no two parts are alike."""
    return b"".join(number.to_bytes(2, "big") for number in range(size // 2 + 1))[:size]


BLOB = content(95)  # ten parts, the last one smaller


def at(verb: str, act: Callable[[], object], *calls: int) -> Callable[[str], None]:
    """A hook of a store that acts at these calls of the verb, counted from 1; at every call if none is named."""
    numbers = count(1)

    def hook(name: str) -> None:
        if name == verb and (next(numbers) in calls or not calls):
            act()

    return hook


def saved(checkpoint: MemoryCheckpoint) -> SavedUpload:
    """The upload that the checkpoint has."""
    assert checkpoint.upload is not None
    return checkpoint.upload


def read(source: Source, offset: int, size: int) -> bytes:
    """A range of the source."""
    buffer = bytearray(size)
    source.readinto(offset, memoryview(buffer))
    return bytes(buffer)


def read_by_threads(source: Source, size: int = 5_000) -> bytes:
    """All of it twice, by eight threads."""
    offsets = list(range(0, source.size, size)) * 2
    with ThreadPoolExecutor(8) as pool:
        return b"".join(pool.map(lambda offset: read(source, offset, size), offsets))


class StopAfter:
    """A stop that asks to stop, or raises the error, after so many calls."""

    def __init__(self, calls: int, error: BaseException | None = None) -> None:
        self._left = calls
        self._error = error

    def __call__(self) -> bool:
        self._left -= 1
        if self._left < 0 and self._error:
            raise self._error
        return self._left < 0


class ToldCheckpoint:
    """A checkpoint that tells of each call right before it."""

    def __init__(self, checkpoint: Checkpoint, tell: Callable[[str], object]) -> None:
        self.mark = checkpoint.mark
        self._checkpoint = checkpoint
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        self._tell(name)
        return getattr(self._checkpoint, name)


class CountingSource(BytesSource):
    """Counts the parts of which something was read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.begun = set[int]()

    def readinto(self, offset: int, buffer: memoryview) -> None:
        self.begun.add(offset // PART)
        super().readinto(offset, buffer)


class Bench:
    """What outlives the runs of one job that writes ``KEY``."""

    def __init__(self, engine: Engine, memory: MemoryStore) -> None:
        self.engine = engine
        self.memory = memory
        self.checkpoint = MemoryCheckpoint("job")

    def write(self, data: bytes | Source = BLOB, store: Store | None = None, *, key: str = KEY, **how: Any) -> None:
        """One run."""
        source = BytesSource(data) if isinstance(data, bytes) else data
        write(self.engine, store or self.memory, key, source, **{"checkpoint": self.checkpoint, **how})

    def record(self, data: bytes | Source = BLOB, store: Store | None = None, **how: Any) -> RecordingStore:
        """One run, and what it asked of the store."""
        recording = RecordingStore(store or self.memory)
        self.write(data, recording, **how)
        return recording

    def interrupt(self, parts: int, store: Store | None = None, data: bytes | Source = BLOB) -> None:
        """A run that is stopped after so many parts."""
        with pytest.raises(Interrupted):
            self.write(data, store, stop=StopAfter(parts))

    def call(self, store: Store | None = None, **how: Any) -> None:
        """A plain call of a driver, which has no ledger."""
        driver = Driver(store or self.memory, root="/videos/", engine=self.engine)
        driver.write_stream("/7.mp4", 0, BytesSource(BLOB), **how)

    @property
    def blob(self) -> bytes | None:
        """What readers see."""
        return blob(self.memory, KEY)

    @property
    def unfinished(self) -> list[str]:
        return unfinished(self.memory)

    @property
    def upload_id(self) -> str:
        upload_id = saved(self.checkpoint).upload_id
        assert upload_id is not None
        return upload_id

    def abort_all(self) -> None:
        """What a lifecycle rule, or somebody with a console, does to unfinished uploads."""
        for entry in list(self.memory.list_uploads()):
            self.memory.abort_upload(entry.key, entry.upload_id)
