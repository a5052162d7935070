"""Streams: parts that grow, buffers that never block others. Readers that fail: tests/driver/test_write_failures."""

import io
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.doubles import FaultyStore, HookedStore, RecordingStore, blob, tiny_store, unfinished
from worker.driver import Driver
from worker.errors import SlowDownError, SupersededError, UploadNotFoundError
from worker.stores.blob_values import Limits
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine

PART = 10
#: Rungs of two parts; sizes 10, 10, 20, 20, 40, 40, … up to 50.
LADDER = Limits(min_part_size=1, max_part_size=50, max_parts=20)
MOST = 2 * (10 + 20 + 40) + 14 * 50
OLD = b"the old blob, of 30 bytes, as it is"


def data(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.fixture
def on() -> Iterator[Callable[[Store], Driver]]:
    engines: list[Engine] = []

    def make(store: Store) -> Driver:
        engines.append(Engine(part_size=PART, part_threads=3))
        return Driver(store, engine=engines[-1])

    yield make
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 21, 40, 41, 140, 141, MOST - 1, MOST])
def test_a_stream_becomes_the_blob_in_parts_that_grow(size: int, on: Callable[[Store], Driver]) -> None:
    store = RecordingStore(tiny_store(limits=LADDER))
    assert on(store).write_stream("/a", 0, io.BytesIO(data(size))) == size
    assert blob(store, "a") == data(size)
    assert unfinished(store) == []
    sizes = [len(part) for _, part in store.sent()]
    assert sizes[:-1] == [10, 10, 20, 20, 40, 40, *[50] * 14][: max(len(sizes) - 1, 0)]
    assert bool(sizes) == (size > PART)


def test_parts_that_no_buffer_holds_are_put_aside_and_may_be_sent_twice(on: Callable[[Store], Driver]) -> None:
    """The buffers have 10 bytes here; the store asks for some parts twice."""

    class AskingTwice(RecordingStore):
        def upload_part(self, *args: Any, **keywords: Any) -> Any:
            super().upload_part(*args, **keywords)
            return super().upload_part(*args, **keywords)

    store = AskingTwice(tiny_store(limits=LADDER))
    on(store).write_stream("/a", 0, io.BytesIO(data(500)))
    assert blob(store, "a") == data(500)


@pytest.mark.parametrize("offset", [0, 7, len(OLD), 50])
@pytest.mark.parametrize("size", [0, 5, 300])
def test_a_stream_is_written_onto_what_is_there(offset: int, size: int, on: Callable[[Store], Driver]) -> None:
    store = RecordingStore(tiny_store(limits=LADDER))
    store.put("a", OLD)
    assert on(store).write_stream("/a", offset, io.BytesIO(data(size))) == size
    assert blob(store, "a") == OLD[:offset].ljust(offset, b"\0") + data(size)
    assert unfinished(store) == []
    assert bool(store.named("copy_part")) == (offset > 0)


@pytest.mark.long  # six pauses; what a busy store means is told in test_pace.py
@pytest.mark.parametrize("verb", ["upload_part", "complete_upload", "create_upload"])
def test_a_store_that_stays_busy_leaves_the_old_blob(verb: str, on: Callable[[Store], Driver]) -> None:
    memory = tiny_store(limits=LADDER)
    memory.put("a", OLD)
    store = FaultyStore(memory, verb, times=99, error=lambda: SlowDownError("busy"))
    with pytest.raises(SlowDownError) as caught:
        on(store).write_stream("/a", 0, io.BytesIO(data(300)))
    assert caught.value.total_read > 0
    assert blob(memory, "a") == OLD
    assert unfinished(memory) == []


def writing(memory: MemoryStore, verb: str) -> Callable[[str], None]:
    def write(called: str) -> None:
        if called == verb:
            memory.put("a", b"theirs")

    return write


@pytest.mark.parametrize("verb", ["upload_part", "complete_upload"])
def test_the_last_writer_of_a_whole_blob_wins(verb: str, on: Callable[[Store], Driver]) -> None:
    memory = tiny_store(limits=LADDER)
    on(HookedStore(memory, before=writing(memory, verb))).write_stream("/a", 0, io.BytesIO(data(300)))
    assert blob(memory, "a") == data(300)
    assert unfinished(memory) == []


def test_a_blob_that_hides_what_was_written_is_said(on: Callable[[Store], Driver]) -> None:
    """As in a versioned bucket, which dates a blob by the opening of its upload."""
    memory = tiny_store(limits=LADDER)
    hiding = HookedStore(memory, before=writing(memory, "upload_part"), after=writing(memory, "complete_upload"))
    with pytest.raises(SupersededError, match="hides"):
        on(hiding).write_stream("/a", 0, io.BytesIO(data(300)))


def test_a_reader_that_never_comes_back_keeps_nobody_waiting(on: Callable[[Store], Driver]) -> None:
    """As many slow readers as there are buffers, and more."""
    memory = tiny_store(limits=LADDER)
    driver, go_on = on(memory), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2 * PART:
                go_on.wait(30)
            return super().read(size)

    with ThreadPoolExecutor(8) as callers:
        slow = [callers.submit(driver.write_stream, f"/slow{n}", 0, Slow(data(300))) for n in range(5)]
        driver.put_content("/quick", b"quick")
        driver.write_stream("/quick-too", 0, io.BytesIO(data(200)))
        go_on.set()
        assert [call.result() for call in slow] == [300] * 5
    assert blob(memory, "quick-too") == data(200)


def test_a_reader_may_recycle_its_buffer(on: Callable[[Store], Driver]) -> None:
    class Recycling:
        def __init__(self) -> None:
            self.left, self.buffer = io.BytesIO(data(300)), bytearray()

        def read(self, size: int) -> bytearray:
            self.buffer[:] = self.left.read(size)
            return self.buffer

    memory = tiny_store(limits=LADDER)
    on(memory).write_stream("/a", 0, Recycling())
    assert blob(memory, "a") == data(300)


def test_an_upload_that_vanishes_at_the_end_cannot_be_begun_again(on: Callable[[Store], Driver]) -> None:
    memory = tiny_store(limits=LADDER)
    memory.put("a", OLD)

    def abort(verb: str) -> None:
        if verb == "complete_upload":
            for entry in memory.list_uploads():
                memory.abort_upload(entry.key, entry.upload_id)

    with pytest.raises(UploadNotFoundError, match="cannot be read again"):
        on(HookedStore(memory, before=abort)).write_stream("/a", 0, io.BytesIO(data(300)))
    assert blob(memory, "a") == OLD
