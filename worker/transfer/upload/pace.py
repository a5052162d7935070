"""The pace: how many parts at once a store is given, fewer while it is under pressure, more again once it copes.

Additive increase, multiplicative decrease, as TCP does it. What the children of one worker share is the *share* of its
configured parallel parts that each of them may have in hand: in memory made before the fork, and without a lock, for
a child may be killed at any instruction. Nothing is counted across processes, so a child that dies takes nothing along.
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

SLOTS: Final = 256  #: storages that are told apart; two that meet in one slot slow down together
TRIES: Final = 6  #: of one part that the store was too busy for; then the job's own retries take over
PAUSE: Final = 0.5  #: seconds before the second one, doubling
LONGEST_PAUSE: Final = 8.0  #: seconds
POLL: Final = 0.05  #: seconds between two questions whether to stop, or whether another child has found it faster
LEAST: Final = 0.01  #: the smallest share: one part of a hundred
STEP: Final = 0.05  #: of the share, or one part if that is more: what a round of parts that all arrived adds
_SLOT: Final = struct.Struct("=dd")  # the share, and when it was last lowered


class Paces:
    """The paces of all storages, for one family of processes: those that are forked once this is made."""

    def __init__(self, *, pause: float = PAUSE) -> None:
        self._pause = pause
        self._memory = mmap.mmap(-1, SLOTS * _SLOT.size)  # zeros: nothing was ever lowered
        self._gates: dict[int, Gate] = {}
        self._lock = threading.Lock()

    def of(self, store: Store) -> "Pace":
        """The pace of a bucket."""
        slot = crc32(f"{store.endpoint} {store.bucket}".encode()) % SLOTS
        with self._lock:
            gate = self._gates.setdefault(slot, Gate())
        return Pace(self._memory, slot * _SLOT.size, gate, self._pause)


class Gate:
    """Parts that this process has in hand at a store, and those that wait for their turn."""

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
        """What part of its parallel parts a process may have in hand now, 0 to 1."""
        share = self._read()[0]
        return share if LEAST <= share < 1.0 else 1.0

    def limit(self, count: int) -> int:
        """How many of ``count`` parallel parts that are, at least one."""
        return max(1, int(count * self.share + 1e-9))

    def call(self, work: Callable[[], Answer], count: int, stop: Stop) -> Answer:
        """Do the work of one part, of up to ``count`` in parallel, once it is its turn; again if the store is too busy.

        Raises Interrupted instead of beginning, or beginning again, once asked to stop; SlowDownError when the store
        stays too busy; whatever the work raises.
        """
        for number in range(TRIES):
            try:
                with self._turn(count, stop):
                    return work()
            except SlowDownError:
                if number == TRIES - 1:
                    raise
            pause = min(self.pause * 2**number, LONGEST_PAUSE)
            _wait(random.uniform(pause / 2, pause), stop)
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def _turn(self, count: int, stop: Stop) -> Iterator[None]:
        with self.gate.changed:
            while self.gate.in_hand >= self.limit(count):
                if stop():
                    raise Interrupted
                self.gate.changed.wait(POLL)
            self.gate.in_hand += 1
        began = time.monotonic()  # one clock for all processes of a machine
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

    # Two processes that write at once may lose one of two small steps; that is the price of having no lock.

    def _lower(self, began: float, count: int, error: StoreUnavailableError) -> None:
        share, lowered_at = self.share, self._read()[1]
        if began < lowered_at:
            return  # this one was already on its way when the pace was lowered: it says nothing new
        share = max(LEAST, share / 2)
        _SLOT.pack_into(self.memory, self.offset, share, time.monotonic())
        logger.info("the store is slower than we are", extra={"share": round(share, 3), "error": error.code})

    def _raise(self, began: float, count: int) -> None:
        share, lowered_at = self.share, self._read()[1]
        if share < 1.0 and began >= lowered_at:
            share += max(STEP, 1 / count) / self.limit(count)
            _SLOT.pack_into(self.memory, self.offset, min(share, 1.0), lowered_at)

    def _read(self) -> tuple[float, float]:
        share, lowered_at = _SLOT.unpack_from(self.memory, self.offset)
        return share, lowered_at


WORKER_PACES: Final = Paces()
"""That of this worker: made when it is imported, before the worker forks its children."""


def _wait(seconds: float, stop: Stop) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stop():
            raise Interrupted
        time.sleep(min(left, POLL))
