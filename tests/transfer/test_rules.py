"""Who does what, and in which order, while bytes move."""

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from blobferry.contract import UploadState
from tests.doubles import (
    BytesSource,
    FaultyStore,
    HookedStore,
    RecordingStore,
    WrappedStore,
    blob,
    tiny_store,
    unfinished,
    write,
)
from tests.transfer.download.downloads import DATA, World
from worker.errors import StoreUnavailableError
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.checkpoint import Checkpoint, MemoryCheckpoint
from worker.transfer.upload.abort import abort_upload
from worker.transfer.upload.engine import Engine
from worker.transfer.upload.server_copy import CopiedPrefix, Copying

KEY = "a"
PART = 10


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(part_size=PART, part_threads=3)
    yield engine
    engine.close()


@pytest.fixture
def memory() -> MemoryStore:
    return tiny_store()


class ToldCheckpoint:
    """A checkpoint that tells of each call right before it."""

    def __init__(self, checkpoint: Checkpoint, tell: Callable[[str], object]) -> None:
        self.mark = checkpoint.mark
        self._checkpoint = checkpoint
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        self._tell(name)
        return getattr(self._checkpoint, name)


def test_threads_touch_the_store_and_the_callers_own_writes_the_checkpoint(engine: Engine, memory: MemoryStore) -> None:
    of_parts, of_the_checkpoint = set[str](), set[str]()

    def sends(verb: str) -> None:
        if verb == "upload_part":
            of_parts.add(threading.current_thread().name)

    checkpoint = ToldCheckpoint(MemoryCheckpoint(), lambda name: of_the_checkpoint.add(threading.current_thread().name))
    write(engine, HookedStore(memory, before=sends), KEY, BytesSource(bytes(95)), checkpoint=checkpoint)
    assert of_the_checkpoint == {threading.current_thread().name}
    assert of_parts, "else nothing is said of them"
    assert of_parts.isdisjoint(of_the_checkpoint)


def test_the_row_of_an_upload_comes_before_the_store_hears_of_it_and_its_id_right_after(
    engine: Engine, memory: MemoryStore
) -> None:
    told: list[str] = []
    checkpoint = ToldCheckpoint(MemoryCheckpoint(), told.append)
    write(engine, HookedStore(memory, before=told.append), KEY, BytesSource(bytes(95)), checkpoint=checkpoint)
    create = told.index("create_upload")
    assert told[create - 1 : create + 2] == ["opening", "create_upload", "opened"]
    complete = told.index("complete_upload")
    assert told[complete - 1 : complete + 2] == ["completing", "complete_upload", "completed"]


def test_the_bytes_of_a_file_are_on_the_disk_before_rows_say_so(tmp_path: Path) -> None:
    world, told = World(tmp_path / "srv"), list[str]()

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in {"fdatasync", "fsync"}:
            told.append("sync")

    sys.setprofile(note)
    try:
        world.run(checkpoint=ToldCheckpoint(world.fenced(), told.append))
    finally:
        sys.setprofile(None)
    assert world.path.read_bytes() == DATA
    recorded = [position for position, name in enumerate(told) if name == "record"]
    assert len(recorded) > 1
    assert all(told[position - 1] == "sync" for position in recorded), told


class Counting(BytesSource):
    """Counts the parts of which something was read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.begun = set[int]()

    def readinto(self, offset: int, buffer: memoryview) -> None:
        self.begun.add(offset // PART)
        super().readinto(offset, buffer)


def test_no_part_is_read_before_there_is_a_slot_to_send_it_from(engine: Engine, memory: MemoryStore) -> None:
    """However many parts a blob has, no more of them are in memory than there are threads."""
    source = Counting(bytes(range(200)))
    in_hand, sent = list[int](), list[str]()

    def sends(verb: str) -> None:
        if verb == "upload_part":
            in_hand.append(len(source.begun) - len(sent))

    def was_sent(verb: str) -> None:
        if verb == "upload_part":
            sent.append(verb)

    write(engine, HookedStore(memory, before=sends, after=was_sent), KEY, source, checkpoint=MemoryCheckpoint())
    assert blob(memory, KEY) == bytes(range(200))
    assert len(sent) == 20
    assert max(in_hand) <= engine.threads.count


def test_a_copied_part_without_a_row_is_copied_again_and_not_read(engine: Engine, memory: MemoryStore) -> None:
    """Reading it to compare would cost more than another copy within the store."""
    checkpoint, old = MemoryCheckpoint(), bytes(range(100, 140))
    memory.put(KEY, old)
    head, copying = CopiedPrefix.of(memory.head(KEY), len(old)), Copying(threshold=1, part_size=PART, threads=1)
    wished = old + bytes(range(20))

    def run(store: Store) -> None:
        write(engine, store, KEY, BytesSource(wished), checkpoint=checkpoint, head=head, copying=copying)

    with pytest.raises(StoreUnavailableError):
        run(FaultyStore(memory, "complete_upload", times=99))
    assert checkpoint.upload is not None
    checkpoint.upload = replace(checkpoint.upload, state=UploadState.OPEN)  # its worker died before it came to that
    checkpoint.drop([2, 3])  # and before these rows were committed
    source = Counting(wished)
    store = RecordingStore(memory)
    write(engine, store, KEY, source, checkpoint=checkpoint, head=head, copying=copying)
    assert [call.args[2] for call in store.named("copy_part", "upload_part")] == [2, 3]
    assert source.begun == set()
    assert blob(memory, KEY) == wished


class LateParts(WrappedStore):
    """Parts that were in flight land after each of the first aborts."""

    def __init__(self, store: Store, aborts: int) -> None:
        super().__init__(store)
        self.aborts = 0
        self._late = aborts

    def abort_upload(self, key: str, upload_id: str) -> None:
        self.aborts += 1
        if self.aborts > self._late:
            super().abort_upload(key, upload_id)


def test_an_upload_is_aborted_until_the_store_lists_no_part_of_it(memory: MemoryStore) -> None:
    upload_id = memory.create_upload(KEY)
    memory.upload_part(KEY, upload_id, 1, b"late")
    with pytest.raises(StoreUnavailableError, match="still has parts"):  # it stays in the ledger, to be tried again
        abort_upload(LateParts(memory, aborts=99), KEY, upload_id)
    late = LateParts(memory, aborts=2)
    abort_upload(late, KEY, upload_id)
    assert late.aborts == 3
    assert unfinished(memory) == []
