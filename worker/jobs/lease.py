"""The lease: a run's right to work on its job and to write its rows; a heartbeat renews it."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from sqlalchemy.orm import Session

from models import Database, JobRow, queries
from worker.errors import LeaseLostError, UnreachableError
from worker.settings import LeaseSettings

logger = logging.getLogger(__name__)

RETRIES_PER_HEARTBEAT: Final = 10  #: how often a failed database write is tried again between two heartbeats

Written = TypeVar("Written")


def lease_clock() -> float:
    """Seconds of a clock that runs on while the machine is suspended, so that its lease ages as well."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def retry_interval(settings: LeaseSettings) -> float:
    """Seconds between two tries of a write while the database is away."""
    return settings.heartbeat_seconds / RETRIES_PER_HEARTBEAT


class Lease:
    """The lease of one run. The heartbeat thread lives within the ``with`` block; any thread may call ``check``."""

    def __init__(self, database: Database, job: JobRow, settings: LeaseSettings, *, taken_at: float) -> None:
        """``taken_at`` is the lease clock right before the claim, so the lease is no older than that."""
        self.job = job
        #: The control requests as of the last heartbeat or write.
        self.requests = queries.ControlRequests(job.cancel_requested, job.pause_requested, overdue=False)
        self._database = database
        self._settings = settings
        self._renewed_at = taken_at
        self._lost = False
        self._attempts = Counter[str]()  #: on the wire, by verb
        self._counting = threading.Lock()
        self._ended = threading.Event()
        self._is_due = threading.Event()  # ends the wait for the next heartbeat
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._is_due.set()
        self._thread.join()

    def hurry(self) -> None:
        """Let the next heartbeat come at once: it brings the control requests. Any thread may call it."""
        self._is_due.set()

    def check(self) -> None:
        """Raise LeaseLostError if another run may own the job now, or within ``margin_seconds``."""
        if self._lost:
            raise LeaseLostError("another run owns the job now")
        self._check_age()

    def before_attempt(self, verb: str) -> None:
        """Check, and count an attempt that is about to be made on the wire. Called in the thread that makes it."""
        self.check()
        with self._counting:
            self._attempts[verb] += 1

    def _check_age(self) -> None:
        age = lease_clock() - self._renewed_at
        if age > self._settings.seconds - self._settings.margin_seconds:
            raise LeaseLostError(f"the lease was renewed {age:.1f} s ago")

    def write(self, work: Callable[[Session], Written], **values: Any) -> Written:
        """Check the token, set these columns of the job and run ``work``, all in one transaction.

        While the database is away, the transaction is repeated for as long as the lease lasts. The answer to a COMMIT
        may have been lost, so ``work`` and ``values`` must be safe to repeat. Raises LeaseLostError.
        """
        while True:
            try:
                with self._database.begin() as session:
                    self.requests = queries.update_owned(session, self.job.id, self.job.token, **values)
                    return work(session)
            except UnreachableError as error:
                self._wait(error)

    def end(self, work: Callable[[Session], object]) -> None:
        """Like :meth:`write`, for the write that ends the run. It is not repeated once its COMMIT has worked.

        Adds the run's attempts on the wire to the job's history.
        """
        is_repeated = False
        while True:
            try:
                with self._database.begin() as session:
                    if not (is_repeated and self._has_ended(session)):
                        queries.count_attempts_on_the_wire(session, self.job, self._attempts)
                        work(session)
                return
            except UnreachableError as error:
                is_repeated = True
                self._wait(error)

    def _has_ended(self, session: Session) -> bool:
        """Whether an earlier try has worked and only the answer to its COMMIT was lost."""
        row = queries.find_job(session, self.job.id)
        return row is not None and row.token == self.job.token and row.lease_expires_at is None

    def _wait(self, error: UnreachableError) -> None:
        # Only the age counts: to the heartbeat, a job that this run has just released looks as if it were lost.
        self._check_age()
        logger.warning("database is away, trying again", extra={"job_id": self.job.id, "reason": str(error)})
        time.sleep(retry_interval(self._settings))
        self._check_age()

    def _beat(self) -> None:
        pause = self._settings.heartbeat_seconds
        while True:
            self._is_due.wait(pause)
            self._is_due.clear()
            if self._ended.is_set() or self._lost:
                return
            pause = self._settings.heartbeat_seconds if self._renew() else retry_interval(self._settings)

    def _renew(self) -> bool:
        asked_at = lease_clock()
        try:
            with self._database.begin() as session:
                requests = queries.extend_lease(session, self.job.id, self.job.token, self._settings.seconds)
        except UnreachableError as error:
            logger.warning("heartbeat did not get through", extra={"job_id": self.job.id, "reason": str(error)})
            return False
        if requests is None:
            self._lost = True
        else:
            self._renewed_at, self.requests = asked_at, requests
        return True
