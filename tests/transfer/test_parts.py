"""Sending parts: bounded in memory, everything in hand is checkpointed, and no thread is left running."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.doubles import (
    BytesSource,
    HookedStore,
    blob,
    tiny_store,
    write,
)
from worker.errors import LeaseLostError, StoreUnavailableError
from worker.stores.memory.memory_store import MemoryStore
from worker.transfer.checkpoint import Checkpoint, MemoryCheckpoint, SentPart, VisibleVersion
from worker.transfer.parts import MAX_BUFFER, PartThreads
from worker.transfer.plan import PartPlan, PartRange
from worker.transfer.stop import Interrupted, never
from worker.transfer.upload.engine import Engine

PLAN = PartPlan(100, 10)


@pytest.fixture
def threads() -> Iterator[PartThreads]:
    threads = PartThreads(3, 10)
    yield threads
    threads.close()


@pytest.fixture
def checkpoint() -> MemoryCheckpoint:
    checkpoint = MemoryCheckpoint()
    checkpoint.opening("key", size=100, part_size=10, base=VisibleVersion())
    checkpoint.opened("id")
    return checkpoint


def sent(part: PartRange, buffer: memoryview) -> SentPart:
    return SentPart(part.number, part.offset, part.size, f'"{part.number}"')


def saved(checkpoint: MemoryCheckpoint) -> set[int]:
    assert checkpoint.upload is not None
    return set(checkpoint.upload.parts)


class Watch:
    """Counts how many parts are being sent at this moment, and the most that ever were."""

    def __init__(self, seconds: float = 0.005) -> None:
        self.now = self.most = self.started = 0
        self.buffers: set[int] = set()
        self._seconds = seconds
        self._lock = threading.Lock()

    def send(self, part: PartRange, buffer: memoryview) -> SentPart:
        with self._lock:
            self.now += 1
            self.started += 1
            self.most = max(self.most, self.now)
            self.buffers.add(id(buffer.obj))
        time.sleep(self._seconds)
        with self._lock:
            self.now -= 1
        return sent(part, buffer)


def test_all_parts_are_sent_and_checkpointed_once(threads: PartThreads, checkpoint: MemoryCheckpoint) -> None:
    answer = threads.send_all(PLAN, sent, checkpoint, never)
    assert sorted(part.part_number for part in answer) == list(range(1, 11))
    assert saved(checkpoint) == set(range(1, 11))
    assert checkpoint.bytes_sent == 100


def test_nothing_to_send_is_nothing_to_checkpoint(threads: PartThreads, checkpoint: MemoryCheckpoint) -> None:
    assert threads.send_all([], sent, checkpoint, never) == []
    assert saved(checkpoint) == set()


def test_no_more_parts_and_buffers_are_in_hand_than_threads(threads: PartThreads, checkpoint: MemoryCheckpoint) -> None:
    watch = Watch()
    threads.send_all(PLAN, watch.send, checkpoint, never)
    threads.send_all(PLAN, watch.send, checkpoint, never)
    assert watch.most == 3
    assert len(watch.buffers) <= 3


def test_a_buffer_is_never_larger_than_its_limit() -> None:
    threads = PartThreads(1, MAX_BUFFER * 10)
    sizes: list[int] = []

    def send(part: PartRange, buffer: memoryview) -> SentPart:
        sizes.append(len(buffer))
        return sent(part, buffer)

    threads.run(send, PLAN.part(1))
    threads.close()
    assert sizes == [MAX_BUFFER]


def test_parts_are_checkpointed_while_others_still_move(threads: PartThreads, checkpoint: MemoryCheckpoint) -> None:
    """A death at the tenth part must not cost the first nine."""
    seen: list[int] = []

    def send(part: PartRange, buffer: memoryview) -> SentPart:
        if part.number == 10:
            deadline = time.monotonic() + 5
            while len(saved(checkpoint)) < 6 and time.monotonic() < deadline:
                time.sleep(0.001)
            seen.append(len(saved(checkpoint)))
        return sent(part, buffer)

    threads.send_all(PLAN, send, checkpoint, never)
    assert seen[0] >= 6


def test_a_slow_part_does_not_keep_finished_ones_from_their_checkpoint(checkpoint: MemoryCheckpoint) -> None:
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
    deadline = time.monotonic() + 5
    while saved(checkpoint) != {2, 3} and time.monotonic() < deadline:
        time.sleep(0.01)
    early = saved(checkpoint)
    release.set()
    runner.join()
    threads.close()
    assert early == {2, 3}
    assert saved(checkpoint) == {1, 2, 3}


@pytest.mark.parametrize("number", [1, 2, 5, 10])
def test_the_first_error_is_raised_after_the_other_parts_in_hand_are_checkpointed(
    number: int, threads: PartThreads, checkpoint: MemoryCheckpoint
) -> None:
    watch = Watch()

    def send(part: PartRange, buffer: memoryview) -> SentPart:
        answer = watch.send(part, buffer)
        if part.number == number:
            raise StoreUnavailableError(f"part {number}")
        return answer

    with pytest.raises(StoreUnavailableError, match=f"part {number}"):
        threads.send_all(PLAN, send, checkpoint, never)
    assert watch.now == 0
    assert len(saved(checkpoint)) == watch.started - 1
    assert number not in saved(checkpoint)
    assert watch.started < number + 2 * threads.count  # nothing new was begun after the error was seen


def stop_after(count: int, error: BaseException | None = None) -> Callable[[], bool]:
    asked = iter(range(1000))

    def stop() -> bool:
        if next(asked) < count:
            return False
        if error:
            raise error
        return True

    return stop


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_stop_ends_between_two_parts_with_all_in_hand_checkpointed(
    count: int, threads: PartThreads, checkpoint: MemoryCheckpoint
) -> None:
    watch = Watch()
    with pytest.raises(Interrupted):
        threads.send_all(PLAN, watch.send, checkpoint, stop_after(count))
    assert watch.now == 0
    assert saved(checkpoint) == set(range(1, count + 1))


def test_a_stop_that_comes_after_the_last_part_was_begun_changes_nothing(
    threads: PartThreads, checkpoint: MemoryCheckpoint
) -> None:
    assert len(threads.send_all(PLAN, sent, checkpoint, stop_after(10))) == 10


def test_a_lost_lease_ends_at_once_with_no_thread_running_and_nothing_written(
    threads: PartThreads, checkpoint: MemoryCheckpoint
) -> None:
    watch = Watch(0.05)
    with pytest.raises(LeaseLostError):
        threads.send_all(PLAN, watch.send, checkpoint, stop_after(2, LeaseLostError("taken over")))
    assert watch.now == 0
    assert watch.started == 2
    assert saved(checkpoint) == set()


def test_a_checkpoint_that_fails_leaves_no_thread_running(threads: PartThreads) -> None:
    watch = Watch(0.02)
    with pytest.raises(AssertionError, match="opening"):
        threads.send_all(PLAN, watch.send, MemoryCheckpoint(), never)
    assert watch.now == 0


def test_the_threads_can_be_used_again_after_an_error(threads: PartThreads, checkpoint: MemoryCheckpoint) -> None:
    def fail(part: PartRange, buffer: memoryview) -> SentPart:
        raise StoreUnavailableError("down")

    for _ in range(5):  # more often than there are buffers to lose
        with pytest.raises(StoreUnavailableError):
            threads.send_all(PLAN, fail, checkpoint, never)
    assert len(threads.send_all(PLAN, sent, checkpoint, never)) == 10


A_KEY = "a"


PART = 10


@pytest.fixture
def wide() -> Iterator[Engine]:
    wide = Engine(part_size=PART, part_threads=3)
    yield wide
    wide.close()


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


def test_threads_touch_the_store_and_the_callers_own_writes_the_checkpoint(wide: Engine, memory: MemoryStore) -> None:
    of_parts, of_the_checkpoint = set[str](), set[str]()

    def sends(verb: str) -> None:
        if verb == "upload_part":
            of_parts.add(threading.current_thread().name)

    checkpoint = ToldCheckpoint(MemoryCheckpoint(), lambda name: of_the_checkpoint.add(threading.current_thread().name))
    write(wide, HookedStore(memory, before=sends), A_KEY, BytesSource(bytes(95)), checkpoint=checkpoint)
    assert of_the_checkpoint == {threading.current_thread().name}
    assert of_parts, "else nothing is said of them"
    assert of_parts.isdisjoint(of_the_checkpoint)


class Counting(BytesSource):
    """Counts the parts of which something was read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.begun = set[int]()

    def readinto(self, offset: int, buffer: memoryview) -> None:
        self.begun.add(offset // PART)
        super().readinto(offset, buffer)


def test_no_part_is_read_before_there_is_a_slot_to_send_it_from(wide: Engine, memory: MemoryStore) -> None:
    """However many parts a blob has, no more of them are in memory than there are threads."""
    source = Counting(bytes(range(200)))
    in_hand, sent = list[int](), list[str]()

    def sends(verb: str) -> None:
        if verb == "upload_part":
            in_hand.append(len(source.begun) - len(sent))

    def was_sent(verb: str) -> None:
        if verb == "upload_part":
            sent.append(verb)

    write(wide, HookedStore(memory, before=sends, after=was_sent), A_KEY, source, checkpoint=MemoryCheckpoint())
    assert blob(memory, A_KEY) == bytes(range(200))
    assert len(sent) == 20
    assert max(in_hand) <= wide.threads.count
