"""What one watch of a job shows, and when. It neither reads nor waits, so threads and event loops use the same."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from blobferry.errors import InvalidRequestError, JobNotFoundError, UnreachableError
from blobferry.jobs.shared_reading import POLL_INTERVAL, SHORTEST_INTERVAL, Reading
from blobferry.redaction import printable, short_repr
from blobferry.values import Job


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """The durations of a watch, in seconds."""

    timeout: float | None  #: after which it raises TimeoutError
    patience: float  #: that the database may be away
    heartbeat: float | None  #: without a change, after which the unchanged job is shown again


def check_limits(timeout: float | None, patience: float, heartbeat: float | None) -> WatchLimits:
    """The durations as a WatchLimits. Raises InvalidRequestError."""
    if heartbeat is not None and not heartbeat > 0:
        raise InvalidRequestError(f"heartbeat: needs seconds above 0, or None, got {short_repr(heartbeat)}")
    return WatchLimits(timeout, patience, heartbeat)


class JobWatch:
    """One watch: what it has shown, and what it waits for."""

    def __init__(
        self,
        job: Job,
        limits: WatchLimits,
        *,
        began: float,
        read_at: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._seen = job
        self._limits = limits
        self._began = began
        self._read_at = read_at
        self._shown = clock()
        self._away: UnreachableError | None = None
        self._away_since = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the job that was shown last is final."""
        return self._seen.is_final

    def interval_alone(self) -> float | None:
        """Seconds to the next reading of this job alone, in proportion to the time waited: so a small job is seen soon
        after its end. None: the readings that all watches share are enough.

        Who asks for heartbeats is one of many, who come back together after a restart.
        """
        interval = (self._clock() - self._began) / 5
        if self._limits.heartbeat is not None or self._away or interval >= POLL_INTERVAL:
            return None
        return max(interval, SHORTEST_INTERVAL)

    def due_in(self) -> float:
        """Seconds, perhaps infinite, until ``look`` is due even without another reading. Raises TimeoutError."""
        now = self._clock()
        due = [math.inf]
        if self._limits.timeout is not None:
            due.append(self._began + self._limits.timeout)
            if now >= due[-1]:
                raise TimeoutError(self._out_of_time(self._limits.timeout))
        if self._limits.heartbeat is not None:
            due.append(self._shown + self._limits.heartbeat)
        return max(min(due) - now, 0.0)

    def look(self, reading: Reading | None) -> Job | None:
        """The job, if it has changed, or a heartbeat is due. Raises UnreachableError, JobNotFoundError."""
        now = self._clock()
        if reading is not None and reading.began >= self._read_at and self._has_changed(reading):
            self._shown = now
            return self._seen
        if self._limits.heartbeat is not None and now - self._shown >= self._limits.heartbeat:
            self._shown = now
            return self._seen
        return None

    def _has_changed(self, reading: Reading) -> bool:
        if reading.away is not None:
            self._away_since = self._away_since if self._away else reading.began
            self._away = reading.away
            if reading.ended - self._away_since >= self._limits.patience:
                raise reading.away
            return False
        if self._seen.id not in reading.asked:  # it began before this watch did
            return False
        self._away = None
        job = reading.jobs.get(self._seen.id)
        if job is None:
            raise JobNotFoundError(self._seen.id)
        before, self._seen = self._seen, job
        return job != before

    def _out_of_time(self, timeout: float) -> str:
        last = f", or was when the database last answered ({self._away})" if self._away else ""
        job = self._seen
        why = f": {printable(f'{job.error_code}: {job.error_message}')}" if job.error_code else ""
        return f"job {job.id} is still {job.state} after {timeout:g} s{why}{last}"
