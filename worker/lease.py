"""The lease: a run's right to work on its job, and the heartbeat that keeps it."""

import logging
import threading
import time
from types import TracebackType
from typing import Final, Self

from models import Database, Job, queries
from worker.errors import LeaseLostError, UnreachableError
from worker.settings import Lease as LeaseSettings

logger = logging.getLogger(__name__)

RETRY_INTERVAL: Final = 1.0  #: seconds between two tries of a heartbeat that did not get through


def lease_clock() -> float:
    """Seconds of a clock that also counts while the machine is suspended: a paused one must not think it owns."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The lease of one run. Its thread lives within the ``with`` block; ``check`` may be called by any thread."""

    def __init__(self, database: Database, job: Job, settings: LeaseSettings, *, taken_at: float) -> None:
        """``taken_at`` is the lease clock right before the claim: the lease cannot be older than that."""
        self.cancel_requested = job.cancel_requested
        self.pause_requested = job.pause_requested
        self._database = database
        self._job = job
        self._settings = settings
        self._renewed_at = taken_at
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LeaseLostError if another run may own the job by now, or soon."""
        age = lease_clock() - self._renewed_at
        if self._lost or age > self._settings.seconds - self._settings.margin_seconds:
            raise LeaseLostError(f"the lease was renewed {age:.1f} s ago")

    def _beat(self) -> None:
        pause = self._settings.heartbeat_seconds
        while not self._ended.wait(pause) and not self._lost:
            pause = self._settings.heartbeat_seconds if self._renew() else RETRY_INTERVAL

    def _renew(self) -> bool:
        asked_at = lease_clock()
        try:
            with self._database.begin() as session:
                flags = queries.extend_lease(session, self._job.id, self._job.token, self._settings.seconds)
        except UnreachableError as error:
            logger.warning("heartbeat did not get through", extra={"job_id": self._job.id, "reason": str(error)})
            return False
        if flags is None:
            self._lost = True
        else:
            self._renewed_at = asked_at
            self.cancel_requested, self.pause_requested = flags
        return True
