"""Runs jobs: claim one, run a slice of it under a lease, record how the run ended.

The runner knows jobs, not bytes. A run that has lost its lease writes nothing more.
"""

import logging
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from blobferry.contract import JobState, Phase
from models import queries
from worker.errors import BlobferryError, LeaseLostError, UnexpectedError, UnreachableError, VerificationError
from worker.jobs.batch.batch_outcomes import GoOn, Reporter, Unreported, run_batch
from worker.jobs.job_claim import claim
from worker.jobs.lease import Lease
from worker.jobs.local_lacks import blame, note_lack
from worker.jobs.operations import OPERATIONS, JobOperation, NotVisibleError
from worker.jobs.outcome import Cancelled, Finished, LeftToOthers, NotClaimed, Outcome, Rescheduled
from worker.jobs.retry import GiveUp, decide
from worker.jobs.run_stop import RunStop, StopReason
from worker.logs import job_context
from worker.maintenance.abort_uploads import abort_given_up
from worker.maintenance.remove_sources import remove_sources
from worker.runtime import Runtime
from worker.stores.attempts import asked_before_attempts
from worker.transfer.stop import Interrupted

logger = logging.getLogger(__name__)

FIRST_POLL_DELAY: Final = 0.5  #: seconds; doubles with each Stat poll, up to LONGEST_POLL_DELAY
LONGEST_POLL_DELAY: Final = 30.0  #: seconds


def run_job(
    runtime: Runtime,
    job_id: str,
    publish_seq: int | None = None,
    *,
    source: object = None,
    reporter: Reporter | None = None,
) -> Outcome:
    """Run one slice of the job if it can be claimed. Safe to call any number of times, also concurrently.

    A small job is run together with others that are due. Raises UnreachableError if the database stays away while the
    job is claimed.

    Args:
        runtime: of this process.
        job_id: of the job.
        publish_seq: the number of the message; an outdated message claims nothing.
        source: as the message has it. Only a job that writes a small file takes others of its kind along.
        reporter: is told of the other jobs.
    """
    taken_at, job = claim(runtime, job_id, publish_seq, source)
    if isinstance(job, LeftToOthers | NotClaimed):
        return job
    if isinstance(job, list):
        go_on: GoOn = lambda lease, error: _Run(runtime, lease).run(error)  # noqa: E731
        return run_batch(runtime, job, taken_at=taken_at, reporter=reporter or Unreported(), go_on=go_on)
    with (
        job_context(job_id=job.id, attempt=job.attempt),
        Lease(runtime.database, job, runtime.settings.lease, taken_at=taken_at) as lease,
    ):
        logger.info("job claimed", extra={"operation": job.operation, "path": job.path, "phase": job.phase})
        outcome = _Run(runtime, lease).run()
        logger.info("run ended", extra={"outcome": repr(outcome)})
        return outcome


class _Run:
    """One run of a claimed job."""

    def __init__(self, runtime: Runtime, lease: Lease) -> None:
        self._runtime = runtime
        self._job = lease.job
        self._lease = lease
        self._stop = RunStop(lease, seconds=runtime.settings.transfer.slice_seconds)
        self._operation: JobOperation | None = None

    def run(self, error: Exception | None = None) -> Outcome:
        """Run the job. ``error``: what the run would meet, if it has begun elsewhere."""
        try:
            try:
                if error is not None:
                    raise error
                return self._execute()
            except Interrupted:
                return self._hand_over()
            except LeaseLostError:
                raise
            except BlobferryError as error:
                return self._failed(error)
            except Exception as error:  # a bug, ours or a library's: the row records it and the job is retried
                logger.exception("unexpected error")
                self._lease.take_deferred()  # it may be what the database has refused; a later run finds it out itself
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
            remove_sources(self._runtime, [job.id] if job.removes_source else [])
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
            self._lease.take_deferred()  # as above
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
