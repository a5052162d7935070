"""Streams: parts that grow, buffers that never block others. Readers that fail: tests/driver/test_write_failures."""

import io
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.doubles import FaultyStore, HookedStore, RecordingStore, blob, tiny_store, unfinished
from tests.transfer.bench import PART, Bench, at
from worker.driver import Driver
from worker.errors import SlowDownError, SupersededError, UploadNotFoundError
from worker.stores.blob_values import Limits
from worker.stores.memory.memory_store import MemoryStore
from worker.stores.store import Store
from worker.transfer.upload.engine import Engine

#: Rungs of two parts; sizes 10, 10, 20, 20, 40, 40, … up to 50.
LADDER = Limits(min_part_size=1, max_part_size=50, max_parts=20)
MOST = 2 * (10 + 20 + 40) + 14 * 50
OLD = b"the old blob, of 30 bytes, as it is"


Stream = Callable[..., int]


def data(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.fixture
def memory() -> MemoryStore:
    return tiny_store(limits=LADDER)


@pytest.fixture
def stream(engine: Engine) -> Stream:
    """Writes data of this size, or what the reader gives, and returns how much there was."""

    def stream(store: Store, data_: Any = 300, offset: int = 0) -> int:
        reader = io.BytesIO(data(data_)) if isinstance(data_, int) else data_
        return Driver(store, engine=engine).write_stream("/a", offset, reader)

    return stream


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 21, 40, 41, 140, 141, MOST - 1, MOST])
def test_a_stream_becomes_the_blob_in_parts_that_grow(size: int, memory: MemoryStore, stream: Stream) -> None:
    store = RecordingStore(memory)
    assert stream(store, size) == size
    assert (blob(store, "a"), unfinished(store)) == (data(size), [])
    sizes = [len(part) for _, part in store.sent()]
    assert sizes[:-1] == [10, 10, 20, 20, 40, 40, *[50] * 14][: max(len(sizes) - 1, 0)]
    assert bool(sizes) == (size > PART)


def test_parts_that_no_buffer_holds_are_put_aside_and_may_be_sent_twice(memory: MemoryStore, stream: Stream) -> None:
    """The buffers have 10 bytes here; the store asks for some parts twice."""

    class AskingTwice(RecordingStore):
        def upload_part(self, *args: Any, **keywords: Any) -> Any:
            super().upload_part(*args, **keywords)
            return super().upload_part(*args, **keywords)

    stream(AskingTwice(memory), 500)
    assert blob(memory, "a") == data(500)


@pytest.mark.parametrize("offset", [0, 7, len(OLD), 50])
@pytest.mark.parametrize("size", [0, 5, 300])
def test_a_stream_is_written_onto_what_is_there(offset: int, size: int, memory: MemoryStore, stream: Stream) -> None:
    memory.put("a", OLD)
    store = RecordingStore(memory)
    assert stream(store, size, offset) == size
    assert (blob(store, "a"), unfinished(store)) == (OLD[:offset].ljust(offset, b"\0") + data(size), [])
    assert bool(store.named("copy_part")) == (offset > 0)


@pytest.mark.long  # six pauses; what a busy store means is told in test_pace.py
@pytest.mark.parametrize("verb", ["upload_part", "complete_upload", "create_upload"])
def test_a_store_that_stays_busy_leaves_the_old_blob(verb: str, memory: MemoryStore, stream: Stream) -> None:
    memory.put("a", OLD)
    with pytest.raises(SlowDownError, check=lambda error: error.total_read > 0):
        stream(FaultyStore(memory, verb, times=99, error=lambda: SlowDownError("busy")))
    assert (blob(memory, "a"), unfinished(memory)) == (OLD, [])


def writing(memory: MemoryStore, verb: str) -> Callable[[str], None]:
    return at(verb, lambda: memory.put("a", b"theirs"))


@pytest.mark.parametrize("verb", ["upload_part", "complete_upload"])
def test_the_last_writer_of_a_whole_blob_wins(verb: str, memory: MemoryStore, stream: Stream) -> None:
    stream(HookedStore(memory, before=writing(memory, verb)))
    assert (blob(memory, "a"), unfinished(memory)) == (data(300), [])


def test_a_blob_that_hides_what_was_written_is_said(memory: MemoryStore, stream: Stream) -> None:
    """As in a versioned bucket, which dates a blob by the opening of its upload."""
    hiding = HookedStore(memory, before=writing(memory, "upload_part"), after=writing(memory, "complete_upload"))
    with pytest.raises(SupersededError, match="hides"):
        stream(hiding)


def test_a_reader_that_never_comes_back_keeps_nobody_waiting(memory: MemoryStore, engine: Engine) -> None:
    """As many slow readers as there are buffers, and more."""
    driver, go_on = Driver(memory, engine=engine), threading.Event()

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


def test_a_reader_may_recycle_its_buffer(memory: MemoryStore, stream: Stream) -> None:
    class Recycling:
        def __init__(self) -> None:
            self.left, self.buffer = io.BytesIO(data(300)), bytearray()

        def read(self, size: int) -> bytearray:
            self.buffer[:] = self.left.read(size)
            return self.buffer

    stream(memory, Recycling())
    assert blob(memory, "a") == data(300)


def test_an_upload_that_vanishes_at_the_end_cannot_be_begun_again(bench: Bench, stream: Stream) -> None:
    bench.memory.put("a", OLD)
    with pytest.raises(UploadNotFoundError, match="cannot be read again"):
        stream(HookedStore(bench.memory, before=at("complete_upload", bench.abort_all)))
    assert blob(bench.memory, "a") == OLD
