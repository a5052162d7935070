"""A job's life: claim it, run a slice of it under a lease, record how that ended.

The runner knows jobs and no bytes. A run that finds itself without its lease writes nothing more.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from blobferry.contract import PAST_RETURN, JobState, Phase
from models import Job, queries
from worker import drain
from worker.errors import (
    BlobferryError,
    LeaseLostError,
    UnexpectedError,
    UnreachableError,
    VerificationError,
)
from worker.lease import Lease, lease_clock
from worker.ledger import abort_given_up
from worker.logs import job_context
from worker.operations import OPERATIONS, NotShownError, Operation, Result
from worker.retry import GiveUp, decide
from worker.runtime import Runtime
from worker.transfer.control import Interrupted

logger = logging.getLogger(__name__)

FIRST_POLL_DELAY: Final = 0.5  #: seconds; doubles with each look of the Stat poll
LONGEST_POLL_DELAY: Final = 30.0  #: seconds


@dataclass(frozen=True, slots=True)
class Nothing:
    """There was nothing to do, or the lease was lost: say nothing about the job."""


@dataclass(frozen=True, slots=True)
class Again:
    """Not the last run: the job goes on later, as its row says."""

    reason: str
    when: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """The job is final: a result, or the error that it failed with."""

    result: Mapping[str, Any] | None = None
    error: BlobferryError | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job is final: it was cancelled in time."""


Outcome = Nothing | Again | Ended | Cancelled


def run_job(runtime: Runtime, job_id: str, publish_seq: int | None = None) -> Outcome:
    """Run one slice of the job, if it is to be had. Safe to call any number of times, anywhere, at once."""
    taken_at = lease_clock()
    with runtime.database.begin() as session:
        job = queries.claim_job(
            session,
            job_id,
            worker=runtime.worker,
            lease_seconds=runtime.settings.lease.seconds,
            publish_seq=publish_seq,
        )
    if job is None:
        return Nothing()
    with (
        job_context(job_id=job.id, attempt=job.attempt),
        Lease(runtime.database, job, runtime.settings.lease, taken_at=taken_at) as lease,
    ):
        logger.info("job claimed", extra={"operation": job.operation, "path": job.path, "phase": job.phase})
        outcome = _Run(runtime, job, lease).outcome()
        logger.info("run ended", extra={"outcome": repr(outcome)})
        return outcome


class _Run:
    """One run of a job that was claimed."""

    def __init__(self, runtime: Runtime, job: Job, lease: Lease) -> None:
        self._runtime = runtime
        self._job = job
        self._lease = lease
        self._ends_at = time.monotonic() + runtime.settings.transfer.slice_seconds
        self._operation: Operation | None = None
        self._stopped = False

    def outcome(self) -> Outcome:
        try:
            try:
                return self._go()
            except Interrupted:
                return self._hand_over()
            except LeaseLostError:
                raise
            except BlobferryError as error:
                return self._failed(error)
            except Exception as error:  # a bug, or a library's surprise: kept in the row, tried again
                logger.exception("unexpected error")
                return self._failed(UnexpectedError(f"{type(error).__name__}: {error}"))
        except LeaseLostError as error:
            logger.warning("lease lost", extra={"reason": str(error)})
        except UnreachableError as error:
            logger.warning("run not recorded, its lease will run out", extra={"reason": str(error)})
        return Nothing()

    def _go(self) -> Outcome:
        operation = self._operation = OPERATIONS[self._job.operation](self._runtime, self._job, self._stop)
        with closing(operation):
            if self._job.phase not in (Phase.VERIFYING, Phase.DELETING_SOURCE):
                operation.bring()
            return self._verify(operation)

    # --- how it ends -----------------------------------------------------------------------------------------------

    def _stop(self) -> bool:
        self._lease.check()
        self._stopped = bool(self._stop_reason())
        return self._stopped

    def _stop_reason(self) -> str:
        operation = self._operation
        if operation is None or not operation.past_return:  # beyond it a cancel is too late: readers may see the blob
            if self._lease.cancel_requested:
                return "cancel"
            if self._lease.pause_requested:
                return "pause"
        if drain.is_draining():
            return "the worker is shutting down"
        is_late = time.monotonic() > self._ends_at
        slice_is_over = is_late and operation is not None and operation.progressed and operation.is_sliced
        return "the slice is over" if slice_is_over else ""

    def _hand_over(self) -> Outcome:
        # What asked to stop may have been taken back; and only a cancel can refuse a publishing call unseen.
        reason = self._stop_reason() or ("asked to stop" if self._stopped else "cancel")
        with self._runtime.database.begin() as session:
            if reason == "cancel":
                queries.cancel_job(session, self._job)
            elif reason == "pause":
                queries.release_job(session, self._job, JobState.PAUSED)
            else:
                queries.release_job(session, self._job, JobState.QUEUED)
        if reason != "cancel":
            return Again(reason, datetime.now(UTC))
        abort_given_up(self._runtime)
        return Cancelled()

    def _verify(self, operation: Operation) -> Outcome:
        """One look of the Stat poll. Between two looks the job holds no slot."""
        job, seconds = self._job, self._runtime.settings.transfer.verify_seconds
        try:
            result = operation.confirm()
        except NotShownError as error:
            difference = str(error)
        else:
            self._finish(result)
            return Ended(result=result)
        delay = min(FIRST_POLL_DELAY * 2 ** min(job.polls, 10), LONGEST_POLL_DELAY)
        with self._runtime.database.begin() as session:
            if queries.poll_again(session, job, seconds):
                queries.release_job(session, job, JobState.VERIFYING, delay=delay)
                return Again(f"Stat does not show the outcome yet: {difference}", _after(delay))
        raise VerificationError(f"{job.path}: Stat did not show the outcome within {seconds:g} s: {difference}")

    def _finish(self, result: Result) -> None:
        try:
            with self._runtime.database.begin() as session:
                queries.finish_job(session, self._job, result)
        except UnreachableError:  # the COMMIT may have worked and only its answer been lost
            with self._runtime.database.begin() as session:
                row = queries.find_job(session, self._job.id)
            if row is None or (row.token, row.state) != (self._job.token, JobState.SUCCEEDED):
                raise

    def _failed(self, error: BlobferryError) -> Outcome:
        progressed = self._operation is not None and self._operation.progressed
        decision = decide(
            error,
            failures=self._job.failures,
            progressed=progressed,
            settings=self._runtime.settings.retry,
            past_return=self._job.phase in PAST_RETURN,
        )
        if isinstance(decision, GiveUp):
            kept = self._runtime.settings.retention.failed_upload_seconds if decision.resumable else 0.0
            with self._runtime.database.begin() as session:
                queries.fail_job(session, self._job, error, keep_upload_seconds=kept)
            logger.error("job failed", extra={"error_code": error.code, "error": str(error)})
            abort_given_up(self._runtime)
            return Ended(error=error)
        with self._runtime.database.begin() as session:
            queries.retry_job(session, self._job, error, delay=decision.delay, failures=decision.failures)
        logger.warning("job will be retried", extra={"error_code": error.code, "error": str(error)})
        return Again(f"{error.code}: {error}", _after(decision.delay))


def _after(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)
