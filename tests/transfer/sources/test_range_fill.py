"""Ranges of blobs that fill a buffer: straight into it, and never after it was given up."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from io import BytesIO

import pytest

from dev.waiting import wait_until
from tests.doubles import BytesReader
from worker.errors import StoreUnavailableError
from worker.stores.blob_values import Reader
from worker.transfer.sources.patience import Patience, SourceWatch
from worker.transfer.sources.range_fill import fill_range
from worker.transfer.stop import Interrupted, never

SIZE = 1_000_000


def watch(stop: Callable[[], bool] = never) -> SourceWatch:
    return Patience(stop).watch("blob://archive/a")


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What hangs in a test ends with it, and leaves no thread behind."""
    event = threading.Event()
    yield event
    event.set()
    wait_until(lambda: "source" not in [thread.name for thread in threading.enumerate()], 30, "the end of the threads")


class HangingReader(BytesIO):
    """Gives three bytes, and then waits; whoever cuts it off lets it write what it was about to write."""

    etag = ""

    def __init__(self) -> None:
        super().__init__()
        self.hangs, self.is_cut = threading.Event(), threading.Event()
        self.has_written = False

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if not self.hangs.is_set():
            self.hangs.set()
            buffer[:3] = b"abc"
            return 3
        assert self.is_cut.wait(30)
        buffer[:4] = b"late"
        self.has_written = True
        return 4

    def abort(self) -> None:
        self.is_cut.set()


class DeafReader(BytesReader):
    """Gives three bytes, and then waits; it cannot be cut off."""

    def __init__(self, release: threading.Event) -> None:
        super().__init__(b"", "")
        self.hangs = threading.Event()
        self._release = release

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.hangs.is_set():
            self.hangs.set()
            return b"abc"
        self._release.wait()
        return b"late"


@pytest.mark.parametrize("watched", [True, False])
def test_the_bytes_come_in_order_and_are_counted(watched: bool) -> None:
    data, buffer = bytes(range(250)) * 4_000, bytearray(SIZE)
    counts = list(fill_range(memoryview(buffer), lambda: closing(BytesReader(data, "")), watch() if watched else None))
    assert (sum(counts), bytes(buffer)) == (SIZE, data)


@pytest.mark.parametrize("watched", [True, False])
def test_bytes_that_end_early_are_counted_before_the_error(watched: bool) -> None:
    buffer = bytearray(10)
    filling = fill_range(memoryview(buffer), lambda: closing(BytesReader(b"abc", "")), watch() if watched else None)
    assert next(filling) == 3
    with pytest.raises(StoreUnavailableError, match="7 bytes before its end"):
        next(filling)
    assert bytes(buffer[:3]) == b"abc"


def test_who_gives_up_the_buffer_waits_until_the_reader_that_it_cut_off_has_left_it() -> None:
    reader, buffer = HangingReader(), bytearray(9)
    with pytest.raises(Interrupted):
        list(fill_range(memoryview(buffer), lambda: closing(reader), watch(reader.hangs.is_set)))
    assert reader.has_written  # before, and not after
    assert reader.closed


def test_a_reader_that_cannot_be_cut_off_is_left_and_writes_nothing_any_more(release: threading.Event) -> None:
    reader, buffer = DeafReader(release), bytearray(9)
    with pytest.raises(Interrupted):
        list(fill_range(memoryview(buffer), lambda: closing(reader), watch(reader.hangs.is_set)))
    kept = bytes(buffer)
    release.set()
    wait_until(lambda: reader.closed, 30, "the end of the reader")
    assert buffer == kept


@pytest.mark.parametrize("kind", [HangingReader, DeafReader])
def test_an_answer_that_comes_too_late_is_closed_unread(
    kind: type[HangingReader | DeafReader], release: threading.Event
) -> None:
    asked, buffer = threading.Event(), bytearray(9)
    reader = HangingReader() if kind is HangingReader else DeafReader(release)

    @contextmanager
    def answer() -> Iterator[Reader]:
        asked.set()
        release.wait()
        with closing(reader):
            yield reader

    opened: Callable[[], AbstractContextManager[Reader]] = answer
    with pytest.raises(Interrupted):
        list(fill_range(memoryview(buffer), opened, watch(asked.is_set)))
    release.set()
    wait_until(lambda: reader.closed, 30, "the end of the reader")
    assert buffer == bytes(9)
    assert not reader.hangs.is_set()
