"""The Celery task of a job: find the message's row, run a slice of the job, report to Celery how the run ended.

Celery gets SUCCESS or FAILURE once, from the last run. A run that claimed nothing raises Ignore. A run that is not the
last raises Retry but sends no message, because the schedule is kept in SQL.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from celery.exceptions import Ignore, Reject, Retry

from blobferry.checks.arguments import check_job_id
from blobferry.contract import ROW_HEADER, SEQ_HEADER, JobState
from models import queries
from models.queries import EndedJob
from worker.celery.bare_task import is_publish_seq, make_row
from worker.celery.batch_report import BatchReport
from worker.celery.batched_messages import is_needless
from worker.celery.next_jobs import publish_next
from worker.celery.result_backend import is_reported
from worker.celery.task_guard import StrictTask
from worker.errors import BlobferryError, DeadlineExceededError, JobError, UnreachableError, WorkerDiedError
from worker.jobs.job_claim import REPORT_ENDED_AFTER
from worker.jobs.outcome import Cancelled, Finished, LeftToOthers, NotClaimed, Outcome, Rescheduled
from worker.jobs.runner import run_job
from worker.runtime import Runtime, current_runtime

logger = logging.getLogger(__name__)

#: The errors that jobs without a run fail with, by code.
ENDINGS: Final[Mapping[str, type[JobError]]] = {kind.code: kind for kind in (WorkerDiedError, DeadlineExceededError)}
LEAVE_PAUSE: Final = 0.5  #: seconds after which a worker takes the next message when it has left a job to others
REQUEUE_PAUSE: Final = 1.0  #: seconds after which a message goes back to the queue while the database is away


class JobTask(StrictTask):
    """A Celery task whose calls are jobs: one row each, any number of runs."""

    abstract = True
    acks_late = True
    max_retries = None
    default_retry_delay = 1  # seconds; only for Celery's own retry of a lost child
    reject_on_worker_lost = True  # only while the broker takes no such retry: the job goes on, so it is no FAILURE
    Request = "worker.celery.revoke:JobRequest"  # used by the parent
    Strategy = "worker.celery.needless_message:strategy"  # the same

    def deliver(self, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Run a slice of the message's job; return the job's result if that was the last slice.

        Otherwise raises what Celery expects: the job's error, Retry, Ignore; Reject if the database is away.
        """
        runtime, request = current_runtime(), self.request
        job_id, has_row, seq = check_job_id(request.id), bool(request.get(ROW_HEADER)), request.get(SEQ_HEADER)
        if has_row and not is_publish_seq(seq):
            logger.warning("message ignored: it has no valid number", extra={"job_id": job_id})
            raise Ignore
        if has_row and is_needless(job_id, seq):
            raise Ignore
        try:
            if not has_row and not make_row(runtime, request, operation, arguments):
                raise Ignore
            seq, source = seq if has_row else None, arguments.get("source")
            outcome = run_job(runtime, job_id, seq, source=source, reporter=BatchReport(self))
            if isinstance(outcome, NotClaimed):
                outcome = self._unreported_outcome(runtime, outcome.ended)
        except UnreachableError as error:
            # A bare message may be the only trace of the job, and another worker may reach the database.
            logger.warning("database is away, message requeued", extra={"job_id": request.id, "reason": str(error)})
            time.sleep(REQUEUE_PAUSE)
            raise Reject(str(error), requeue=True) from error
        match outcome:
            case Finished(error=BlobferryError() as failure):
                raise failure
            case Finished(result=result):
                return result
            case Rescheduled(reason, when):
                raise Retry(reason, exc=JobError(reason), when=when)
            case LeftToOthers(reason, when):
                # So that an idle worker does not snatch every message from those that can run it.
                time.sleep(LEAVE_PAUSE)
                raise Retry(reason, exc=JobError(reason), when=when)
            case Cancelled():
                self.backend.mark_as_revoked(request.id, "cancelled", request=request)
                raise Ignore
            case _:
                raise Ignore

    def _unreported_outcome(self, runtime: Runtime, ended: EndedJob | None) -> Outcome:
        """The outcome of a job that ended without a Celery result: the caretaker ended it, or its worker died.

        A run that has just ended may still be storing its result. So the job must have ended a while ago, unless this
        message is newer than its last run. Or nothing follows the job: then it may be reported twice, since both
        reports are the same. The message of a job of a batch is older than its run, and may be the last one.
        """
        if ended is None:
            with runtime.database.begin() as session:
                ended = queries.find_ended(session, self.request.id, REPORT_ENDED_AFTER)
        if ended is None:
            return NotClaimed()
        is_newer = ended.publish_seq == self.request.get(SEQ_HEADER)
        if not (ended.is_old or is_newer or not ended.is_followed) or is_reported(self.backend, self.request.id):
            return NotClaimed()
        if ended.state == JobState.FAILED:
            return Finished(error=ENDINGS.get(ended.error_code or "", JobError)(ended.error_message or ""))
        return Cancelled() if ended.state == JobState.CANCELLED else Finished(result=ended.result)

    def after_return(self, *args: Any, **kwargs: Any) -> None:
        """Publish the next jobs after Celery has stored this run's result, so that no later RETRY overwrites it."""
        publish_next(self.app)

    def on_retry(self, *args: Any, **kwargs: Any) -> None:
        """Publish the next jobs after a run that was not the last."""
        publish_next(self.app)
