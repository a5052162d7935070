"""Sending parts: a few threads, each with one buffer, and a checkpoint every few parts.

A slot is taken before its part is read, so memory is bounded by ``part_threads`` buffers. Threads touch the store;
the caller's own thread writes the checkpoint.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Final

from worker.transfer.checkpoint import Checkpoint, SentPart
from worker.transfer.control import Interrupted, Stop
from worker.transfer.plan import PartRange
from worker.units import MIB

MAX_BUFFER: Final = 64 * MIB  #: bytes; a larger part is streamed in windows
CHECKPOINT_INTERVAL: Final = 0.5  #: seconds; what is lost in between is found in the store again

Send = Callable[[PartRange, memoryview], SentPart]


class PartThreads:
    """The threads and buffers of one worker child, used by one transfer at a time. Starts no thread until needed."""

    def __init__(self, count: int, part_size: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="part")
        self._buffers: SimpleQueue[memoryview] = SimpleQueue()
        self._buffer_size = min(part_size, MAX_BUFFER)
        self._spare = count

    def close(self) -> None:
        """Wait for the threads and end them."""
        self._pool.shutdown()

    def run(self, send: Send, part: PartRange) -> SentPart:
        """Send one part with a buffer of this child's, in the calling thread."""
        buffer = self._take_buffer()
        try:
            return send(part, buffer)
        finally:
            self._buffers.put(buffer)

    def send_all(self, parts: Iterable[PartRange], send: Send, checkpoint: Checkpoint, stop: Stop) -> list[SentPart]:
        """Send the parts and checkpoint them; return what was sent, in no order.

        Raises the first error of a part, or Interrupted, after the other parts in hand have been checkpointed too.
        """
        todo, pending = iter(parts), set[Future[SentPart]]()
        sent: list[SentPart] = []
        saved = 0  # how many of them the checkpoint has
        failure: BaseException | None = None
        saved_at = time.monotonic()
        try:
            while True:
                while failure is None and len(pending) < self.count and (part := next(todo, None)):
                    if stop():
                        failure = Interrupted()
                    else:
                        pending.add(self._pool.submit(self.run, send, part))
                due = len(sent) - saved >= self.count or time.monotonic() - saved_at > CHECKPOINT_INTERVAL
                if len(sent) > saved and (due or not pending):
                    fresh = sent[saved:]
                    checkpoint.record(fresh, bytes_sent=sum(part.size for part in fresh))
                    saved, saved_at = len(sent), time.monotonic()
                if not pending:
                    break
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    error = future.exception()
                    if error is None:
                        sent.append(future.result())
                    failure = failure or error
        finally:
            wait(pending)  # no thread may go on using a buffer, or the source, after this returns
        if failure is not None:
            raise failure
        return sent

    def _take_buffer(self) -> memoryview:
        if self._buffers.empty() and self._spare > 0:
            self._spare -= 1  # made on first use: a child that only moves small blobs stays small
            return memoryview(bytearray(self._buffer_size))
        return self._buffers.get()
