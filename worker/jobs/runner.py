"""Runs jobs: claim one, run a slice of it under a lease, record how the run ended.

The runner knows jobs, not bytes. A run that has lost its lease writes nothing more.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from blobferry.contract import JobState, Phase
from models import ClaimedJob, queries
from worker.errors import BlobferryError, LeaseLostError, UnexpectedError, UnreachableError, VerificationError
from worker.jobs.lease import Lease, lease_clock, retry_interval
from worker.jobs.local_lacks import blame, note_lack
from worker.jobs.operations import OPERATIONS, JobOperation, NotVisibleError
from worker.jobs.outcome import Cancelled, Finished, LeftToOthers, NotClaimed, Outcome, Rescheduled
from worker.jobs.path_holds import holds_of
from worker.jobs.retry import GiveUp, decide
from worker.jobs.run_stop import RunStop, StopReason
from worker.logs import job_context
from worker.maintenance.abort_uploads import abort_given_up
from worker.runtime import Runtime
from worker.stores.attempts import asked_before_attempts
from worker.transfer.stop import Interrupted

logger = logging.getLogger(__name__)

CLAIM_SECONDS: Final = 5.0  #: for so long a claim is repeated while the database is away
LEFT_SECONDS: Final = 2.0  #: until a job is published again that this worker has left to others
FIRST_POLL_DELAY: Final = 0.5  #: seconds; doubles with each Stat poll, up to LONGEST_POLL_DELAY
LONGEST_POLL_DELAY: Final = 30.0  #: seconds


def run_job(runtime: Runtime, job_id: str, publish_seq: int | None = None) -> Outcome:
    """Run one slice of the job if it can be claimed. Safe to call any number of times, also concurrently.

    ``publish_seq`` is the number of the message; an outdated message claims nothing. Raises UnreachableError if the
    database stays away while the job is claimed.
    """
    taken_at, job = _claim(runtime, job_id, publish_seq)
    if job is None:
        return NotClaimed()
    if isinstance(job, LeftToOthers):
        return job
    with (
        job_context(job_id=job.id, attempt=job.attempt),
        Lease(runtime.database, job, runtime.settings.lease, taken_at=taken_at) as lease,
    ):
        logger.info("job claimed", extra={"operation": job.operation, "path": job.path, "phase": job.phase})
        outcome = _Run(runtime, lease).run()
        logger.info("run ended", extra={"outcome": repr(outcome)})
        return outcome


Claim = ClaimedJob | LeftToOthers | None


def _claim(runtime: Runtime, job_id: str, publish_seq: int | None) -> tuple[float, Claim]:
    """Claim the job; return the earliest time at which its lease may have begun, by the lease clock, and the job.

    A job that needs what this worker lacks is left to those that may have it.

    The claim is repeated while the database is away: the answer to the COMMIT may have been lost.
    """
    began_at, is_repeated = lease_clock(), False
    while True:
        taken_at = lease_clock()
        try:
            runtime.share_capabilities()
            job: Claim = None
            if not (is_repeated or publish_seq):  # each claim raises the number, so this may be the first
                job = _claim_new(runtime, job_id, publish_seq)
            return taken_at, job or _claim_any(runtime, job_id, publish_seq, is_repeated=is_repeated)
        except UnreachableError as error:
            if lease_clock() - began_at > CLAIM_SECONDS:
                raise
            is_repeated = True
            logger.warning("database is away, claiming again", extra={"job_id": job_id, "reason": str(error)})
            time.sleep(retry_interval(runtime.settings.lease))


def _claim_new(runtime: Runtime, job_id: str, publish_seq: int | None) -> ClaimedJob | None:
    with runtime.database.begin() as session:
        return queries.claim_new_job(
            session,
            job_id,
            worker=runtime.worker,
            worker_id=runtime.worker_id,
            lease_seconds=runtime.settings.lease.seconds,
            publish_seq=publish_seq,
            holds=lambda job: holds_of(job, runtime.drivers, runtime.sealer),
        )


def _claim_any(runtime: Runtime, job_id: str, publish_seq: int | None, *, is_repeated: bool) -> Claim:
    retention = runtime.settings.retention
    with runtime.database.begin() as session:
        lack = queries.leave_to_others(session, job_id, runtime.worker_id, seconds=LEFT_SECONDS)
        if lack is not None:
            reason = f"left to others: this worker, {runtime.worker_name}, lacks {lack.need}: {lack.reason}"
            return LeftToOthers(reason, _after(LEFT_SECONDS))
        job = queries.claim_job(
            session,
            job_id,
            worker=runtime.worker,
            lease_seconds=runtime.settings.lease.seconds,
            publish_seq=publish_seq,
            is_repeated=is_repeated,
            holds=lambda job: holds_of(job, runtime.drivers, runtime.sealer),
            failed_upload_seconds=retention.failed_upload_seconds,
        )
        if job is None:  # perhaps because of a control request: apply it now, not in the next sweep
            paused_upload_seconds = retention.paused_upload_seconds
            queries.apply_requests(session, limit=1, job_id=job_id, paused_upload_seconds=paused_upload_seconds)
    return job


class _Run:
    """One run of a claimed job."""

    def __init__(self, runtime: Runtime, lease: Lease) -> None:
        self._runtime = runtime
        self._job = lease.job
        self._lease = lease
        self._stop = RunStop(lease, seconds=runtime.settings.transfer.slice_seconds)
        self._operation: JobOperation | None = None

    def run(self) -> Outcome:
        try:
            try:
                return self._execute()
            except Interrupted:
                return self._hand_over()
            except LeaseLostError:
                raise
            except BlobferryError as error:
                return self._failed(error)
            except Exception as error:  # a bug, ours or a library's: the row records it and the job is retried
                logger.exception("unexpected error")
                return self._failed(UnexpectedError(f"{type(error).__name__}: {error}"))
        except LeaseLostError as error:
            logger.warning("lease lost", extra={"reason": str(error)})
        return NotClaimed()

    def _execute(self) -> Outcome:
        operation = self._operation = OPERATIONS[self._job.operation](self._runtime, self._lease, self._stop)
        self._stop.operation = operation
        with closing(operation), asked_before_attempts(self._lease.before_attempt):
            if self._job.phase not in (Phase.VERIFYING, Phase.DELETING_SOURCE):
                operation.execute()
            return self._verify(operation)

    # --- how it ends -----------------------------------------------------------------------------------------------

    def _hand_over(self) -> Outcome:
        reason = self._stop.reason() or StopReason.WITHDRAWN
        match reason:
            case StopReason.CANCEL:
                self._lease.end(queries.cancel_job, self._job)
                abort_given_up(self._runtime)
                return Cancelled()
            case StopReason.DEADLINE:
                return self._give_up(queries.deadline_error(self._job))
            case StopReason.PAUSE:
                seconds = self._runtime.settings.retention.paused_upload_seconds
                self._lease.end(queries.pause_job, self._job, paused_upload_seconds=seconds)
            case _:
                self._lease.end(queries.release_job, self._job, JobState.QUEUED)
        return Rescheduled(reason, datetime.now(UTC))

    def _verify(self, operation: JobOperation) -> Outcome:
        """One Stat poll. Between two polls the job occupies no slot."""
        job, seconds = self._job, self._runtime.settings.transfer.verify_seconds
        try:
            result = operation.verify()
        except NotVisibleError as error:
            difference = str(error)
        else:
            self._lease.end(self._finish, result, **self._lease.take_deferred())
            return Finished(result=result)
        if not self._lease.write(queries.poll_again, job, seconds):
            raise VerificationError(f"{job.path}: Stat did not show the outcome within {seconds:g} s: {difference}")
        delay = min(FIRST_POLL_DELAY * 2 ** min(job.polls, 10), LONGEST_POLL_DELAY)
        self._lease.end(queries.release_job, job, JobState.VERIFYING, delay=delay)
        return Rescheduled(f"Stat does not show the outcome yet: {difference}", _after(delay))

    def _finish(self, session: Session, result: Mapping[str, Any], **values: Any) -> None:
        queries.finish_job(session, self._job, result, **values)
        if self._job.may_lack:
            queries.forget_lacks(session, self._runtime.worker_id, self._job.needs)

    def _failed(self, error: BlobferryError) -> Outcome:
        try:
            return self._record(error)
        except (LeaseLostError, UnreachableError):
            raise
        except Exception:  # the database refuses something in it; else the job would look like that of a dead worker
            logger.exception("the error could not be recorded", extra={"error_code": error.code})
            return self._record(nameless(error))

    def _record(self, error: BlobferryError) -> Outcome:
        settings = self._runtime.settings.retry
        blame(error, self._job, self._runtime)
        others = note_lack(error, self._lease, self._runtime) if error.lacks else 0
        decision = decide(
            error,
            failures=self._job.failures,
            progressed=self._operation is not None and self._operation.progressed,
            settings=settings,
            others=others,
        )
        if isinstance(decision, GiveUp):
            seconds = self._runtime.settings.retention.failed_upload_seconds if decision.resumable else 0.0
            return self._give_up(error, failed_upload_seconds=seconds)
        delay, failures, most = decision.delay, decision.failures, settings.max_attempts
        self._lease.end(queries.retry_job, self._job, error, delay=delay, failures=failures, max_attempts=most)
        logger.warning("job will be retried", extra={"error_code": error.code, "error": str(error)})
        return Rescheduled(f"{error.code}: {error}", _after(delay))

    def _give_up(self, error: BlobferryError, *, failed_upload_seconds: float = 0.0) -> Outcome:
        self._lease.end(queries.fail_job, self._job, error, failed_upload_seconds=failed_upload_seconds)
        logger.error("job failed", extra={"error_code": error.code, "error": str(error)})
        abort_given_up(self._runtime)
        return Finished(error=error)


def nameless(error: BlobferryError) -> BlobferryError:
    """An error with the same code whose message is the name of its class."""
    bare = UnexpectedError(type(error).__name__)
    bare.code, bare.transient = error.code, error.transient  # type: ignore[misc]
    bare.resumable, bare.retry_after = error.resumable, error.retry_after
    return bare


def _after(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)
