"""How long a source is waited for: until it is too slow, or the run is asked to stop, also within a part.

A thread that waits for a server, a name or a store cannot be interrupted. So it is a thread of its own that waits, and
whoever needs the bytes looks at it several times a second. An abandoned thread writes nowhere: it ends with its piece.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from typing import Final, TypeVar

from worker.errors import SourceUnavailableError
from worker.stores.attempts import in_this_context
from worker.transfer.stop import Interrupted, Stop, never, while_stalled, within_part

POLL: Final = 0.25  #: seconds between two looks at ``stop``

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Patience:
    """The least rate of a source, and the Stop that is asked between its pieces."""

    stop: Stop = never
    least_rate: float = 0  #: bytes per second; 0: any
    seconds: float = 60.0  #: over which the rate is measured
    stalled: Stop | None = None  #: asked instead while no piece comes

    @classmethod
    def of_run(cls, stop: Stop) -> "Patience | None":
        """That of a blob in a configured storage, whose store has time limits of its own: any rate.

        None for a stop that does not tell what may cut a part off: then only the parts ask it.
        """
        found = within_part(stop)
        return None if found is stop else cls(found, stalled=while_stalled(stop))

    def watch(self, url: str) -> "SourceWatch":
        """Begin to wait for bytes."""
        return SourceWatch(self, url)


@dataclass(slots=True)
class SourceWatch:
    """One wait for bytes of a source."""

    patience: Patience
    url: str  #: for messages
    _began: float = field(default_factory=time.monotonic)
    _count: int = 0

    def arrived(self, count: int) -> None:
        """Count bytes, and check as ``check`` does."""
        self._count += count
        self.check()

    def check(self, *, is_stalled: bool = False) -> None:
        """Raise Interrupted, or SourceUnavailableError if too few bytes have arrived."""
        patience = self.patience
        if patience.stalled() if is_stalled and patience.stalled else patience.stop():
            raise Interrupted
        if not patience.least_rate or time.monotonic() - self._began < patience.seconds:
            return
        if self._count < patience.least_rate * patience.seconds:
            error = SourceUnavailableError(
                f"{self.url}: too slow: {self._count} bytes in {patience.seconds:g} s; sources.least_rate is "
                f"{patience.least_rate:g} bytes/s"
            )
            error.retry_after = 0.0  # asking again at once would only take another slot's minute
            raise error
        self._began, self._count = time.monotonic(), 0


def watched(pieces: Generator[Item], watch: SourceWatch) -> Iterator[Item]:
    """Yield the pieces, which are made in a thread of their own. Raises as they do.

    While there is none, raises as ``SourceWatch.check`` does; the caller passes each to ``SourceWatch.arrived``.
    """
    queue: Queue[tuple[Item | None, BaseException | None]] = Queue(1)
    abandoned = threading.Event()

    def put(item: Item | None, end: BaseException | None) -> bool:
        while not abandoned.is_set():
            try:
                queue.put((item, end), timeout=POLL)
            except Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            with closing(pieces):
                for piece in pieces:
                    if not put(piece, None):
                        return
        except BaseException as error:  # raised where the pieces are needed
            put(None, error)
        else:
            put(None, StopIteration())

    threading.Thread(target=in_this_context(make), name="source", daemon=True).start()
    try:
        while True:
            try:
                item, end = queue.get(timeout=POLL)
            except Empty:
                watch.check(is_stalled=True)
                continue
            if isinstance(end, StopIteration):
                return
            if end is not None:
                raise end
            yield item  # type: ignore[misc]  # None only beside an end
    finally:
        abandoned.set()


def waited_for(
    work: Callable[[], Item], watch: SourceWatch, *, discard: Callable[[Item], object] | None = None
) -> Item:
    """The result of the work, which is done in a thread of its own; ``discard`` gets it if it comes too late."""

    def once() -> Generator[Item]:
        result = work()
        try:
            yield result
        except GeneratorExit:
            if discard is not None:
                discard(result)
            raise

    return next(watched(once(), watch))
