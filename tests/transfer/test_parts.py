"""Sending parts: bounded in memory, everything in hand is checkpointed, and no thread is left running."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from tests.doubles import HookedStore
from tests.transfer.bench import Bench, CountingSource, StopAfter, ToldCheckpoint, at, saved
from worker.errors import LeaseLostError, StoreUnavailableError
from worker.transfer.checkpoint import MemoryCheckpoint, SentPart, VisibleVersion
from worker.transfer.parts import MAX_BUFFER, PartThreads
from worker.transfer.plan import PartPlan, PartRange
from worker.transfer.stop import Interrupted, never

PLAN = PartPlan(100, 10)
THREADS = 3


class SavedParts(MemoryCheckpoint):
    """A checkpoint that other threads can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self.opening("key", size=100, part_size=10, base=VisibleVersion())
        self.opened("id")

    def record(self, parts: Sequence[SentPart], **how: Any) -> None:
        with self._changed:
            super().record(parts, **how)
            self._changed.notify_all()

    @property
    def numbers(self) -> set[int]:
        return set(saved(self).parts)

    def wait_for(self, is_reached: Callable[[Collection[int]], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: is_reached(self.numbers), 10)


@pytest.fixture
def threads() -> Iterator[PartThreads]:
    with closing(PartThreads(THREADS, 10)) as threads:
        yield threads


@pytest.fixture
def checkpoint() -> SavedParts:
    return SavedParts()


def sent(part: PartRange, buffer: memoryview) -> SentPart:
    return SentPart(part.number, part.offset, part.size, f'"{part.number}"')


class Watch:
    """Counts how many parts are being sent at this moment, and the most that ever were. ``hold`` keeps each a while."""

    def __init__(self, hold: Callable[[], object] = lambda: None) -> None:
        self.now = self.most = self.started = 0
        self.buffers: set[int] = set()
        self._hold = hold
        self._lock = threading.Lock()

    def send(self, part: PartRange, buffer: memoryview) -> SentPart:
        with self._lock:
            self.now += 1
            self.started += 1
            self.most = max(self.most, self.now)
            self.buffers.add(id(buffer.obj))
        self._hold()
        with self._lock:
            self.now -= 1
        return sent(part, buffer)


class Held:
    """Holds parts until ``let_go``, which does so a moment later: what it is called by has gone on, or has not."""

    def __init__(self) -> None:
        self._released = threading.Event()

    def __call__(self) -> None:
        assert self._released.wait(10)

    def let_go(self) -> None:
        threading.Timer(0.05, self._released.set).start()


def test_all_parts_are_sent_and_checkpointed_once(threads: PartThreads, checkpoint: SavedParts) -> None:
    answer = threads.send_all(PLAN, sent, checkpoint, never)
    assert sorted(part.part_number for part in answer) == list(range(1, 11))
    assert (checkpoint.numbers, checkpoint.bytes_sent) == (set(range(1, 11)), 100)


def test_without_parts_there_is_nothing_to_checkpoint(threads: PartThreads, checkpoint: SavedParts) -> None:
    assert threads.send_all([], sent, checkpoint, never) == []
    assert checkpoint.numbers == set()


def test_no_more_parts_and_buffers_are_in_hand_than_threads(threads: PartThreads, checkpoint: SavedParts) -> None:
    watch = Watch(threading.Barrier(THREADS, timeout=10).wait)  # they move on in threes
    for _ in range(2):
        threads.send_all(PartPlan(90, 10), watch.send, checkpoint, never)
    assert watch.most == THREADS
    assert len(watch.buffers) <= THREADS


def test_a_buffer_is_never_larger_than_its_limit() -> None:
    threads = PartThreads(1, MAX_BUFFER * 10)
    sizes: list[int] = []

    def send(part: PartRange, buffer: memoryview) -> SentPart:
        sizes.append(len(buffer))
        return sent(part, buffer)

    threads.run(send, PLAN.part(1))
    threads.close()
    assert sizes == [MAX_BUFFER]


def test_parts_are_checkpointed_while_others_still_move(threads: PartThreads, checkpoint: SavedParts) -> None:
    """A death at the tenth part must not cost the first nine."""
    seen: list[bool] = []

    def send(part: PartRange, buffer: memoryview) -> SentPart:
        if part.number == 10:
            seen.append(checkpoint.wait_for(lambda numbers: len(numbers) >= 6))
        return sent(part, buffer)

    threads.send_all(PLAN, send, checkpoint, never)
    assert seen == [True]


def test_a_slow_part_does_not_keep_finished_ones_from_their_checkpoint(checkpoint: SavedParts) -> None:
    """With fewer finished parts than threads, time decides."""
    threads = PartThreads(8, 10)
    release = threading.Event()

    def send(part: PartRange, buffer: memoryview) -> SentPart:
        if part.number == 1:
            release.wait(10)
        if part.number == 3:
            time.sleep(0.7)  # longer than the checkpoint's interval, so that its end wakes the loop after it
        return sent(part, buffer)

    runner = threading.Thread(target=lambda: threads.send_all(PartPlan(30, 10), send, checkpoint, never))
    runner.start()
    early = checkpoint.wait_for(lambda numbers: numbers == {2, 3})
    release.set()
    runner.join()
    threads.close()
    assert early
    assert checkpoint.numbers == {1, 2, 3}


@pytest.mark.parametrize("number", [1, 2, 5, 10])
def test_the_first_error_is_raised_after_the_other_parts_are_checkpointed(
    number: int, threads: PartThreads, checkpoint: SavedParts
) -> None:
    watch = Watch()

    def send(part: PartRange, buffer: memoryview) -> SentPart:
        answer = watch.send(part, buffer)
        if part.number == number:
            raise StoreUnavailableError(f"part {number}")
        return answer

    with pytest.raises(StoreUnavailableError, match=f"part {number}"):
        threads.send_all(PLAN, send, checkpoint, never)
    assert (watch.now, len(checkpoint.numbers)) == (0, watch.started - 1)
    assert number not in checkpoint.numbers
    assert watch.started < number + 2 * threads.count  # nothing new was begun after the error was seen


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_stop_ends_between_two_parts_with_all_in_hand_checkpointed(
    count: int, threads: PartThreads, checkpoint: SavedParts
) -> None:
    watch = Watch()
    with pytest.raises(Interrupted):
        threads.send_all(PLAN, watch.send, checkpoint, StopAfter(count))
    assert (watch.now, checkpoint.numbers) == (0, set(range(1, count + 1)))


def test_a_stop_after_the_last_part_was_begun_changes_nothing(threads: PartThreads, checkpoint: SavedParts) -> None:
    assert len(threads.send_all(PLAN, sent, checkpoint, StopAfter(10))) == 10


def test_a_lost_lease_ends_at_once_with_no_thread_running_and_nothing_written(
    threads: PartThreads, checkpoint: SavedParts
) -> None:
    held = Held()
    watch, stop = Watch(held), StopAfter(2, LeaseLostError("taken over"))

    def lose() -> bool:
        try:
            return stop()
        except LeaseLostError:
            held.let_go()
            raise

    with pytest.raises(LeaseLostError):
        threads.send_all(PLAN, watch.send, checkpoint, lose)
    assert (watch.now, watch.started, checkpoint.numbers) == (0, 2, set())


def test_a_checkpoint_that_fails_leaves_no_thread_running(threads: PartThreads) -> None:
    held = Held()
    watch = Watch(held)

    def fail() -> None:
        held.let_go()
        raise LookupError("no database")

    def send(part: PartRange, buffer: memoryview) -> SentPart:
        return sent(part, buffer) if part.number <= THREADS else watch.send(part, buffer)

    with pytest.raises(LookupError):
        threads.send_all(PLAN, send, ToldCheckpoint(MemoryCheckpoint(), at("record", fail)), never)
    assert watch.now == 0


def test_the_threads_can_be_used_again_after_an_error(threads: PartThreads, checkpoint: SavedParts) -> None:
    def fail(part: PartRange, buffer: memoryview) -> SentPart:
        raise StoreUnavailableError("down")

    for _ in range(5):  # more often than there are buffers to lose
        with pytest.raises(StoreUnavailableError):
            threads.send_all(PLAN, fail, checkpoint, never)
    assert len(threads.send_all(PLAN, sent, checkpoint, never)) == 10


# --- with the engine -------------------------------------------------------------------------------------------------


def test_threads_call_the_store_and_the_callers_own_writes_the_checkpoint(bench: Bench) -> None:
    of_parts, of_the_checkpoint = set[int](), set[int]()
    checkpoint = ToldCheckpoint(MemoryCheckpoint(), lambda name: of_the_checkpoint.add(threading.get_ident()))
    sends = at("upload_part", lambda: of_parts.add(threading.get_ident()))
    bench.write(store=HookedStore(bench.memory, before=sends), checkpoint=checkpoint)
    assert of_the_checkpoint == {threading.get_ident()}
    assert of_parts, "else nothing is said of them"
    assert of_parts.isdisjoint(of_the_checkpoint)


def test_no_part_is_read_before_there_is_a_buffer_to_send_it_from(bench: Bench) -> None:
    """However many parts a blob has, no more of them are in memory than there are threads."""
    source = CountingSource(bytes(range(200)))
    in_hand, done = list[int](), list[None]()
    sends = at("upload_part", lambda: in_hand.append(len(source.begun) - len(done)))
    was_sent = at("upload_part", lambda: done.append(None))
    bench.write(source, HookedStore(bench.memory, before=sends, after=was_sent))
    assert (bench.blob, len(done)) == (source.data, 20)
    assert max(in_hand) <= bench.engine.threads.count
