"""Sending parts: a few threads, each with one buffer, and a checkpoint every few parts.

A buffer is taken before its part is read, so memory is bounded by ``part_threads`` buffers. The threads call the store;
the caller's own thread takes the buffers, reads streams, and writes the checkpoint. No thread of the pool waits for a
buffer, so any number of transfers may share the pool.
"""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from queue import SimpleQueue
from typing import Final

from worker.stores.attempts import in_this_context
from worker.transfer.checkpoint import Checkpoint, SentPart
from worker.transfer.plan import PartRange
from worker.transfer.stop import Interrupted, Stop
from worker.units import MIB

MAX_BUFFER: Final = 64 * MIB  #: bytes; a larger part is streamed in windows
CHECKPOINT_INTERVAL: Final = 0.5  #: seconds; after a crash, later parts are found in the store's listing

Task = Callable[[], SentPart]
"""Sends one part, in a thread of the pool."""
Prepare = Callable[[PartRange], Task | None]
"""Makes the task of a part, in the caller's thread; None if there are no more bytes."""
Send = Callable[[PartRange, memoryview], SentPart]
Record = Callable[[list[SentPart]], None]
"""Checkpoints some parts."""


def run_all(
    executor: Executor, count: int, parts: Iterable[PartRange], prepare: Prepare, record: Record, stop: Stop
) -> list[SentPart]:
    """Run a task for each part, ``count`` at a time; record the sent parts and return them, in no order.

    Raises the first error of a part, or Interrupted, once the other parts in hand are recorded.

    Args:
        executor: runs the tasks.
        count: number of parts in hand at once.
        parts: in the order in which they are prepared.
        prepare: makes a part's task, in the calling thread.
        record: checkpoints parts, in the calling thread, every ``count`` parts or ``CHECKPOINT_INTERVAL``.
        stop: called before each part.
    """
    pending = set[Future[SentPart]]()
    sent: list[SentPart] = []
    saved = 0  # number of parts in ``sent`` that are recorded
    failure: BaseException | None = None
    saved_at = time.monotonic()
    todo = iter(parts)
    try:
        while True:
            while failure is None and len(pending) < count and (part := next(todo, None)):
                if stop():
                    failure = Interrupted()
                    break
                try:
                    task = prepare(part)
                except Exception as error:
                    failure = error
                    break
                if task is None:
                    todo = iter(())
                else:
                    pending.add(executor.submit(in_this_context(task)))
            due = len(sent) - saved >= count or time.monotonic() - saved_at > CHECKPOINT_INTERVAL
            if len(sent) > saved and (due or not pending):
                record(sent[saved:])
                saved, saved_at = len(sent), time.monotonic()
            if not pending:
                break
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                problem = future.exception()
                if problem is None:
                    sent.append(future.result())
                failure = failure or problem
    finally:
        wait(pending)  # no thread may use a buffer or the source after this returns
    if failure is not None:
        raise failure
    return sent


class Buffers:
    """Up to ``count`` buffers. Thread-safe."""

    def __init__(self, count: int, size: int) -> None:
        self._size = size
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._spare = count
        self._lock = threading.Lock()

    def take(self) -> memoryview:
        """Block until a buffer is free. Call from the transfer's own thread, never while holding another (deadlock)."""
        with self._lock:
            if self._free.empty() and self._spare > 0:
                self._spare -= 1  # made on first use: a child that only moves small blobs needs little memory
                # Begins at a page, as direct writes to a disk demand.
                return memoryview(mmap(-1, self._size, MAP_PRIVATE | MAP_ANONYMOUS))
        return self._free.get()

    def give(self, buffer: memoryview) -> None:
        """Make a taken buffer free again."""
        self._free.put(buffer)

    def task(self, send: Send, part: PartRange, buffer: memoryview) -> Task:
        """Make the task that sends a part from a taken buffer and then gives the buffer back."""

        def work() -> SentPart:
            try:
                return send(part, buffer)
            finally:
                self.give(buffer)

        return work


class PartThreads:
    """The threads and buffers of one worker child. Thread-safe; starts no thread until needed."""

    def __init__(self, count: int, part_size: int) -> None:
        self.count = count
        self.buffer_size = min(part_size, MAX_BUFFER)
        self.buffers = Buffers(count, self.buffer_size)
        self.executor = ThreadPoolExecutor(count, thread_name_prefix="part")

    def close(self) -> None:
        """End the threads, once they are done."""
        self.executor.shutdown()

    def task(self, send: Send, part: PartRange) -> Task:
        """Take a buffer, which may block, and make the task that sends a part from it."""
        return self.buffers.task(send, part, self.buffers.take())

    def run(self, send: Send, part: PartRange) -> SentPart:
        """Send one part in the calling thread."""
        return self.task(send, part)()

    def send_all(self, parts: Iterable[PartRange], send: Send, checkpoint: Checkpoint, stop: Stop) -> list[SentPart]:
        """Send parts that can be read at any offset. Raises as :func:`run_all` does."""
        record = recorder(checkpoint)
        return run_all(self.executor, self.count, parts, lambda part: self.task(send, part), record, stop)


def recorder(checkpoint: Checkpoint) -> Record:
    """Make a function that records parts whose bytes were sent."""
    return lambda parts: checkpoint.record(parts, bytes_sent=sum(part.size for part in parts))
