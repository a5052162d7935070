"""The lease: a run's right to work on its job and to write its rows; a heartbeat renews it."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from sqlalchemy.orm import Session

from blobferry.contract import UploadState
from models import ClaimedJob, Database, queries
from worker.errors import LeaseLostError, UnreachableError
from worker.jobs.heartbeat import PROCESS_HEARTBEAT
from worker.settings import LeaseSettings

logger = logging.getLogger(__name__)

RETRIES_PER_HEARTBEAT: Final = 10  #: how often a failed database write is tried again between two heartbeats

Written = TypeVar("Written")


def do_nothing(session: Session) -> Any:
    """The work of a write that only sets columns of the job."""


def lease_clock() -> float:
    """Seconds of a clock that runs on while the machine is suspended, so that its lease ages as well."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def retry_interval(settings: LeaseSettings) -> float:
    """Seconds between two tries of a write while the database is away."""
    return settings.heartbeat_seconds / RETRIES_PER_HEARTBEAT


class _CancelledFirst(Exception):
    """A cancel was requested before the point of no return; the transaction is rolled back."""


class Lease:
    """The lease of one run, renewed by the process's heartbeat within the ``with`` block. Any thread may check it."""

    def __init__(self, database: Database, job: ClaimedJob, settings: LeaseSettings, *, taken_at: float) -> None:
        """``taken_at`` is the lease clock right before the claim, so the lease is no older than that."""
        self.job = job
        #: The control requests as of the last heartbeat or write.
        self.requests = queries.ControlRequests(job.cancel_requested, job.pause_requested, overdue=False)
        self._database = database
        self._settings = settings
        self._renewed_at = taken_at
        self._lost = False
        self.is_repeating = False  #: whether the answer to a COMMIT of the write that is going on may have been lost
        self._deferred: dict[str, Any] = {}  #: columns that the next write sets
        self._completed: int | None = None  #: the upload that the next write says to be completed
        self._counting = threading.Lock()

    def __enter__(self) -> Self:
        PROCESS_HEARTBEAT.keep(self, self._settings.heartbeat_seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        PROCESS_HEARTBEAT.drop(self)

    def hurry(self) -> None:
        """Let the next heartbeat come at once: it brings the control requests. Any thread may call it."""
        PROCESS_HEARTBEAT.hurry(self)

    def check(self) -> None:
        """Raise LeaseLostError if another run may own the job now, or within ``margin_seconds``."""
        if self._lost:
            raise LeaseLostError("another run owns the job now")
        self._check_age()

    def before_attempt(self, verb: str) -> None:
        """Check, and count an attempt that is about to be made on the wire. Called in the thread that makes it."""
        self.check()
        with self._counting:
            self.job.sent[verb] += 1

    def _check_age(self) -> None:
        age = lease_clock() - self._renewed_at
        if age > self._settings.seconds - self._settings.margin_seconds:
            raise LeaseLostError(f"the lease was renewed {age:.1f} s ago")

    def defer(self, *, completed: int | None = None, **values: Any) -> None:
        """Have the run's next write set these columns of the job, too. The job has them from now on.

        Only for what a later run finds out by itself if this one dies before its next write. ``completed``: the id of
        an upload whose state becomes "completed" in that write.
        """
        self._deferred |= values
        self._completed = completed or self._completed
        self.job.take(values)

    def take_deferred(self) -> dict[str, Any]:
        """What waits for the next write: columns, and the upload as ``completed``. The caller writes it."""
        taken = {**self._deferred, "completed": self._completed}
        self._deferred, self._completed = {}, None
        return taken

    def write(self, work: Callable[..., Written] = do_nothing, *args: Any, **values: Any) -> Written:
        """Check the token, set these columns of the job and run ``work(session, *args)``, all in one transaction.

        While the database is away, the transaction is repeated for as long as the lease lasts. The answer to a COMMIT
        may have been lost, so ``work`` and ``values`` must be safe to repeat. Raises LeaseLostError.
        """

        def update(session: Session, **columns: Any) -> Written:
            self.requests = queries.update_owned(session, self.job.id, self.job.token, **columns)
            return work(session, *args)

        return self._write(update, values)

    def pass_point_of_no_return(self, work: Callable[..., object] = do_nothing, *args: Any, **values: Any) -> bool:
        """Like :meth:`write`, unless a cancel came first: then nothing is written, and the answer is False."""

        def update(session: Session, **columns: Any) -> None:
            if not queries.pass_point_of_no_return(session, self.job, **columns):
                raise _CancelledFirst
            work(session, *args)

        try:
            self._write(update, values)
        except _CancelledFirst:
            self.requests = self.requests._replace(cancel=True)
            return False
        return True

    def _write(self, update: Callable[..., Written], values: dict[str, Any]) -> Written:
        self.is_repeating = False
        while True:
            try:
                with self._database.begin() as session:
                    answer = update(session, **self._deferred | values)
                    if self._completed is not None:
                        queries.update_upload(session, self._completed, state=UploadState.COMPLETED)
            except UnreachableError as error:
                self.is_repeating = True
                self._wait(error)
            else:
                self._deferred, self._completed = {}, None
                self.job.take(values)
                return answer

    def end(self, work: Callable[..., object], *args: Any, **values: Any) -> None:
        """Run ``work(session, *args, **values)``, the write that ends the run. What was deferred is written before.

        Like :meth:`write`, but not repeated once its COMMIT has worked.
        """
        self.is_repeating = False
        while True:
            try:
                with self._database.begin() as session:
                    if not (self.is_repeating and self._has_ended(session)):
                        self._save_deferred(session)
                        work(session, *args, **values)
                return
            except UnreachableError as error:
                self.is_repeating = True
                self._wait(error)

    def _save_deferred(self, session: Session) -> None:
        if self._deferred:
            queries.update_owned(session, self.job.id, self.job.token, **self._deferred)
        if self._completed is not None:
            queries.update_upload(session, self._completed, state=UploadState.COMPLETED)

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

    def beat(self) -> float | None:
        """For the heartbeat: renew the lease; return the seconds until the next renewal, None if it is lost."""
        asked_at = lease_clock()
        try:
            with self._database.begin() as session:
                requests = queries.extend_lease(session, self.job.id, self.job.token, self._settings.seconds)
        except UnreachableError as error:
            logger.warning("heartbeat did not get through", extra={"job_id": self.job.id, "reason": str(error)})
            return retry_interval(self._settings)
        if requests is None:
            self._lost = True
            return None
        self._renewed_at, self.requests = asked_at, requests
        return self._settings.heartbeat_seconds
