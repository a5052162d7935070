"""One reading of all jobs that a client watches: however many watch, the database answers one query per interval."""

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Final

from blobferry.errors import UnreachableError
from blobferry.values import Job

SHORTEST_INTERVAL: Final = 0.01  #: seconds between two readings of a job that is watched for a moment
POLL_INTERVAL: Final = 0.2  #: seconds between two readings
AWAY_INTERVAL: Final = 1.0  #: seconds between two readings while the database is away
IDLE: Final = 9.0  #: times the CPU time of a reading that passes before the next one: watching takes a tenth of a core


@dataclass(frozen=True, slots=True)
class Reading:
    """The jobs that were watched, read together. Times are of one clock, such as ``time.monotonic``."""

    began: float
    ended: float
    asked: Collection[str]
    jobs: Mapping[str, Job]  #: those of the asked ones that exist, by id
    away: UnreachableError | None = None  #: why nothing was read


class SharedReading:
    """Reads the watched jobs for all watches of a client. Thread-safe; may be made before a fork; has no thread.

    ``read`` is ``JobReader.get_many``.
    """

    def __init__(
        self, read: Callable[[Collection[str]], Mapping[str, Job]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._lock = Lock()  # of _watched; never held while the database is asked: event loops take it too
        self._one_reads = Lock()
        self._watched: Counter[str] = Counter()
        self._last: Reading | None = None
        self._next_at = 0.0

    def _own(self) -> None:
        # In a forked child the locks may be held, and jobs may be watched, by threads that are not there.
        if self._process != os.getpid():
            self._forget()

    @contextmanager
    def watched(self, job_id: str) -> Iterator[None]:
        """Have the job read along until the block ends."""
        self._own()
        with self._lock:
            if not self._watched:  # the caller has just read it
                self._next_at = self._clock() + POLL_INTERVAL
            self._watched[job_id] += 1
        try:
            yield
        finally:
            self._own()
            with self._lock:
                self._watched[job_id] -= 1
                self._watched = +self._watched

    def due_in(self) -> float:
        """Seconds until the next reading."""
        return max(self._next_at - self._clock(), 0.0)

    def latest(self) -> Reading:
        """The last reading, or a new one if that is due. Whoever comes while it is made waits for it."""
        self._own()
        with self._one_reads:
            if self._last is None or not self.due_in():
                self._last = self._new()
            return self._last

    def alone(self, job_id: str) -> Reading:
        """A new reading of one job."""
        return self._reading((job_id,))

    def _new(self) -> Reading:
        busy = time.thread_time()
        with self._lock:
            asked = frozenset(self._watched)
        reading = self._reading(asked)
        rest = IDLE * (time.thread_time() - busy)
        self._next_at = reading.ended + (AWAY_INTERVAL if reading.away else max(POLL_INTERVAL, rest))
        return reading

    def _reading(self, asked: Collection[str]) -> Reading:
        began = self._clock()
        jobs: Mapping[str, Job] = {}
        away = None
        try:
            jobs = self._read(asked)
        except UnreachableError as error:
            away = error
        return Reading(began, self._clock(), asked, jobs, away)
