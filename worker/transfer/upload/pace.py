"""The pace: how many parts a store gets at once. Fewer when it answers "slow down", then gradually more.

Additive increase, multiplicative decrease, as in TCP. The children of a worker share one number for each bucket: the
*share* of its configured parallel parts that a child may have in hand. It is in memory made before the fork, and has no
lock, because a child may be killed at any instruction. No count is shared, so the death of a child leaves none wrong.
"""

import logging
import mmap
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar
from zlib import crc32

from worker.errors import SlowDownError, StoreUnavailableError, WriteConflictError
from worker.stores.store import Store
from worker.transfer.stop import Interrupted, Stop

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

SLOTS: Final = 256  #: number of buckets that are told apart; two buckets in one slot slow down together
TRIES: Final = 6  #: tries of one part that the store is too busy for; after them, the job's retries
PAUSE: Final = 0.5  #: seconds before the second try, doubling
LONGEST_PAUSE: Final = 8.0  #: seconds
POLL: Final = 0.05  #: seconds between two checks of ``stop``, and of the share that other children may have raised
LEAST: Final = 0.01  #: the smallest share
STEP: Final = 0.05  #: added to the share by a round of parts without an error; at least one part
_SLOT: Final = struct.Struct("=dd")  # the share, and the time when it was last lowered


class Paces:
    """The paces of all buckets, shared with the processes that are forked after this is made."""

    def __init__(self, *, pause: float = PAUSE) -> None:
        self._pause = pause
        self._memory = mmap.mmap(-1, SLOTS * _SLOT.size)  # zeros: never lowered
        self._gates: dict[int, Gate] = {}
        self._lock = threading.Lock()

    def of(self, store: Store) -> "Pace":
        """Return the pace of the store's bucket."""
        slot = crc32(f"{store.endpoint} {store.bucket}".encode()) % SLOTS
        with self._lock:
            gate = self._gates.setdefault(slot, Gate())
        return Pace(self._memory, slot * _SLOT.size, gate, self._pause)


class Gate:
    """Counts the parts that this process has in hand at a store; threads wait at it for their turn."""

    def __init__(self) -> None:
        self.in_hand = 0
        self.changed = threading.Condition()


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of one bucket. Thread-safe."""

    memory: mmap.mmap = field(repr=False)
    offset: int
    gate: Gate = field(repr=False)
    pause: float = PAUSE

    @property
    def share(self) -> float:
        """The fraction of its parallel parts that a process may have in hand now, ``LEAST`` to 1."""
        share = self._read()[0]
        return share if LEAST <= share < 1.0 else 1.0

    def limit(self, count: int) -> int:
        """Return how many of ``count`` parallel parts that allows, at least one."""
        return max(1, int(count * self.share + 1e-9))

    def call(self, work: Callable[[], Answer], count: int, stop: Stop) -> Answer:
        """Do the work of one part when its turn comes, and repeat it if the store is too busy.

        ``count`` is the configured number of parallel parts. Raises Interrupted instead of a try once ``stop`` asks;
        SlowDownError if the store stays too busy; any error of the work.
        """
        for number in range(TRIES):
            try:
                with self._turn(count, stop):
                    return work()
            except SlowDownError as error:
                asked = error.retry_after or 0.0
                if number == TRIES - 1 or asked > LONGEST_PAUSE:  # a longer wait is the job's, which holds no slot
                    raise
            pause = min(self.pause * 2**number, LONGEST_PAUSE)
            _wait(max(random.uniform(pause / 2, pause), asked), stop)
        raise AssertionError("the last try returns or raises")

    def once(self, work: Callable[[], Answer], count: int, stop: Stop) -> Answer:
        """The same without repeating it: for a commit call, which nobody repeats before a look at the key."""
        with self._turn(count, stop):
            return work()

    @contextmanager
    def _turn(self, count: int, stop: Stop) -> Iterator[None]:
        with self.gate.changed:
            while self.gate.in_hand >= self.limit(count):
                if stop():
                    raise Interrupted
                self.gate.changed.wait(POLL)
            self.gate.in_hand += 1
        began = time.monotonic()  # CLOCK_MONOTONIC, the same in all processes of a machine
        try:
            yield
        except WriteConflictError:
            raise
        except StoreUnavailableError as error:
            self._lower(began, count, error)
            raise
        else:
            self._raise(began, count)
        finally:
            with self.gate.changed:
                self.gate.in_hand -= 1
                self.gate.changed.notify_all()

    # Without a lock, one of two steps that are written at once may be lost. The next steps make up for it.

    def _lower(self, began: float, count: int, error: StoreUnavailableError) -> None:
        share, lowered_at = self.share, self._read()[1]
        if began < lowered_at:
            return  # sent before the pace was lowered: not a sign that the lower pace is too fast
        share = max(LEAST, share / 2)
        _SLOT.pack_into(self.memory, self.offset, share, time.monotonic())
        logger.info("store is busy, sending fewer parts at once", extra={"share": round(share, 3), "error": error.code})

    def _raise(self, began: float, count: int) -> None:
        share, lowered_at = self.share, self._read()[1]
        if share < 1.0 and began >= lowered_at:
            share += max(STEP, 1 / count) / self.limit(count)
            _SLOT.pack_into(self.memory, self.offset, min(share, 1.0), lowered_at)

    def _read(self) -> tuple[float, float]:
        share, lowered_at = _SLOT.unpack_from(self.memory, self.offset)
        return share, lowered_at


WORKER_PACES: Final = Paces()
"""The paces of this worker: made on import, before it forks its children."""


def _wait(seconds: float, stop: Stop) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stop():
            raise Interrupted
        time.sleep(min(left, POLL))
