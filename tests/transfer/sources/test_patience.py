"""How long sources are waited for: a stop and the least rate take effect whatever the source does."""

import threading
from collections.abc import Generator, Iterator

import pytest

from dev.waiting import wait_until
from worker.errors import LeaseLostError, SourceUnavailableError
from worker.stores.attempts import asked_before_attempts, before_attempt
from worker.transfer.sources.patience import Patience, waited_for, watched
from worker.transfer.sources.source import fill
from worker.transfer.stop import Interrupted, within_part

URL = "https://example.com/a"


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What hangs in a test ends with it, and leaves no thread behind."""
    event = threading.Event()
    yield event
    event.set()
    wait_until(lambda: "source" not in [thread.name for thread in threading.enumerate()], 30, "the end of the threads")


def test_pieces_come_in_order_and_errors_where_they_are_raised() -> None:
    def pieces(*end: Exception) -> Generator[bytes]:
        yield from (b"a", b"b", b"c")
        for error in end:
            raise error

    assert list(watched(pieces(), Patience().watch(URL))) == [b"a", b"b", b"c"]
    found = watched(pieces(ValueError("x")), Patience().watch(URL))
    assert [next(found) for _ in range(3)] == [b"a", b"b", b"c"]
    with pytest.raises(ValueError, match="x"):
        next(found)


def test_a_source_that_hangs_is_left_when_a_stop_comes(release: threading.Event) -> None:
    hangs, ended = threading.Event(), threading.Event()

    def pieces(offset: int, size: int) -> Generator[bytes]:
        try:
            yield b"abc"
            hangs.set()
            release.wait()
            yield b"too late"
        finally:
            ended.set()

    buffer = bytearray(9)
    with pytest.raises(Interrupted):
        fill(memoryview(buffer), 0, pieces, Patience(hangs.is_set).watch(URL))
    kept = bytes(buffer)
    release.set()
    assert ended.wait(30)
    assert buffer == kept  # what comes too late goes nowhere


def test_a_source_that_drips_is_stopped_between_two_bytes() -> None:
    given: list[int] = []

    def pieces(offset: int, size: int) -> Generator[bytes]:
        for number in range(size):
            given.append(number)
            yield b"x"

    with pytest.raises(Interrupted):
        fill(memoryview(bytearray(1000)), 0, pieces, Patience(lambda: len(given) >= 5).watch(URL))
    assert len(given) < 20


def test_too_low_a_rate_is_an_error_that_a_later_run_may_mend() -> None:
    asked: list[int] = []

    def pieces(offset: int, size: int) -> Generator[bytes]:
        asked.append(offset)
        yield b"x"

    patience = Patience(least_rate=1e12, seconds=1e-9)  # 1,000 bytes in the time between any two looks
    with pytest.raises(SourceUnavailableError, match=r"too slow: 1 bytes in 1e-09 s; sources\.least_rate") as caught:
        fill(memoryview(bytearray(10)), 0, pieces, patience.watch(URL))
    assert caught.value.transient
    assert asked == [0]  # not asked again at once


def test_a_source_that_hangs_for_ever_is_too_slow(release: threading.Event) -> None:
    def pieces(offset: int, size: int) -> Generator[bytes]:
        release.wait()
        yield b"x"

    with pytest.raises(SourceUnavailableError, match="too slow: 0 bytes"):
        fill(memoryview(bytearray(10)), 0, pieces, Patience(least_rate=1, seconds=0.1).watch(URL))


def test_enough_bytes_begin_a_new_window() -> None:
    watch = Patience(least_rate=1, seconds=1e-9).watch(URL)
    for _ in range(3):
        watch.arrived(1)
        with pytest.raises(SourceUnavailableError):
            watch.check()


def test_a_result_that_comes_too_late_is_discarded(release: threading.Event) -> None:
    begun, discarded = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        release.wait()
        return "late"

    with pytest.raises(Interrupted):
        waited_for(work, Patience(begun.is_set).watch(URL), discard=lambda result: discarded.set())
    release.set()
    assert discarded.wait(30)
    assert waited_for(lambda: 7, Patience().watch(URL)) == 7


def test_an_attempt_on_the_wire_asks_the_run_that_waits_for_its_answer() -> None:
    """It is made in another thread, and must be neither uncounted nor sent without a lease."""
    asked: list[str] = []
    with asked_before_attempts(asked.append):
        waited_for(lambda: before_attempt("get"), Patience().watch(URL))
    assert asked == ["get"]

    def refuse(verb: str) -> None:
        raise LeaseLostError(verb)

    with asked_before_attempts(refuse), pytest.raises(LeaseLostError, match="head"):
        waited_for(lambda: before_attempt("head"), Patience().watch(URL))


def test_only_a_stop_that_tells_them_apart_has_another_one_within_a_part() -> None:
    class Two:
        def __call__(self) -> bool:
            return True

        def within_part(self) -> bool:
            return False

    def plain() -> bool:
        return True

    assert (within_part(plain), within_part(Two())()) == (plain, False)
    assert Patience.of_run(plain) is None
    assert Patience.of_run(Two()) is not None
