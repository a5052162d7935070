"""How a run ends: it releases its job, or ends it. All raise LeaseLostError if another run owns the job."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import BigInteger, String, bindparam, case, func, literal, select, update
from sqlalchemy.orm import Session

from blobferry.contract import PAST_POINT_OF_NO_RETURN, UNFINISHED_UPLOADS, JobState, UploadState
from blobferry.errors import BlobferryError, StoreError, TransferError
from blobferry.sql.clock import db_now
from blobferry.sql.tables import uploads
from models.claimed_job import ClaimedJob
from models.job import JobRow
from models.queries.conditions import UNOWNED
from models.queries.history import close_attempt, described, save_attempt
from models.queries.locks import drop_locks
from models.queries.outbox import ENDED, note_end
from models.queries.ownership import update_owned
from models.queries.unowned import give_up_uploads, keep_paused_upload

_NOW: Final = db_now()


def release_job(session: Session, job: ClaimedJob, state: JobState, *, delay: float = 0.0, **values: Any) -> None:
    """Release the job, to be claimed again after ``delay`` seconds: after a slice, a drain or a Stat poll."""
    update_owned(session, job.id, job.token, state=state, run_at=db_now(delay), crash_streak=0, **UNOWNED, **values)
    save_attempt(session, job)


def pause_job(session: Session, job: ClaimedJob, *, paused_upload_seconds: float) -> None:
    """Release the job as paused, keeping its upload for that long; as queued if it was resumed in the meantime."""
    state = case((JobRow.pause_requested, JobState.PAUSED), else_=JobState.QUEUED)
    requests = update_owned(session, job.id, job.token, state=state, run_at=None, crash_streak=0, **UNOWNED)
    save_attempt(session, job)
    if requests.pause:
        keep_paused_upload(session, job.id, paused_upload_seconds)


def retry_job(
    session: Session, job: ClaimedJob, error: BlobferryError, *, delay: float, failures: int, max_attempts: int
) -> None:
    """Record a transient error and release the job.

    Args:
        error: ended this run; it is kept in the row and in the history.
        delay: seconds until the job may be claimed again.
        failures: runs in a row that made no progress, this one included.
        max_attempts: the number of such runs that fails the job; shown beside ``failures``.
    """
    code, message = described(error)
    why = {"failures": failures, "max_attempts": max_attempts, "error_code": code, "error_message": message}
    retrying = {"state": JobState.RETRYING, "run_at": db_now(delay), "crash_streak": 0}
    update_owned(session, job.id, job.token, **retrying, **UNOWNED, **why)
    close_attempt(session, job, "retrying", error)


def finish_job(
    session: Session, job: ClaimedJob, result: Mapping[str, Any], *, completed: int | None = None, **values: Any
) -> None:
    """End the job as succeeded, after Stat has shown its outcome.

    Args:
        job: as its run knows it.
        result: of the job.
        completed: the id of the upload whose blob Stat has shown, if its row does not say yet that it is completed.
        values: further columns of the job.
    """
    ended = {"result": dict(result), "bytes_done": job.size or 0, "error_code": None, "error_message": None}
    _end(session, job, JobState.SUCCEEDED, **values | ended)
    close_attempt(session, job, "succeeded")
    # Any other upload is that of an earlier run, from before the job's storage was configured anew.
    session.execute(_END_UPLOADS, {"of_job": job.id, "completed": completed})
    drop_locks(session, job.id)


def fail_job(session: Session, job: ClaimedJob, error: BlobferryError, *, failed_upload_seconds: float = 0.0) -> None:
    """End the job as failed. Its upload is aborted after ``failed_upload_seconds``; 0: now."""
    code, message = described(error)
    certain = _is_certain(session, job, error)
    _end(session, job, JobState.FAILED, error_code=code, error_message=message)
    close_attempt(session, job, "failed", error)
    give_up_uploads(session, job.id, failed_upload_seconds=failed_upload_seconds, certain=certain)
    drop_locks(session, job.id)


def cancel_job(session: Session, job: ClaimedJob) -> None:
    """End the job as cancelled, before its point of no return."""
    _end(session, job, JobState.CANCELLED, error_code=None, error_message=None)
    close_attempt(session, job, "cancelled")
    give_up_uploads(session, job.id, failed_upload_seconds=0.0, certain=True)
    drop_locks(session, job.id)


_END_UPLOADS: Final = (
    update(uploads)
    .where(
        uploads.c.job_id == bindparam("of_job", type_=String),
        uploads.c.state.in_([literal(state) for state in UNFINISHED_UPLOADS]),
    )
    .values(
        state=case(
            (uploads.c.id == bindparam("completed", type_=BigInteger), literal(UploadState.COMPLETED)),
            else_=literal(UploadState.ABORTING),
        ),
        recheck_at=None,
        updated_at=db_now(),
    )
)


def _end(session: Session, job: ClaimedJob, state: JobState, **values: Any) -> None:
    ended = {**values, "state": state, "phase": None, "run_at": None, **UNOWNED}
    update_owned(session, job.id, job.token, finished_at=_NOW, **ENDED, **ended)
    note_end(session, state, {job.id: (job.storage, job.on_end)})


def _is_certain(session: Session, job: ClaimedJob, error: BlobferryError | None) -> bool:
    """Whether nothing can become visible any more: after a TransferError we looked.

    After a StoreError it cannot before the point of no return. Any other error may hide a completion that succeeds
    later.
    """
    if isinstance(error, StoreError):
        # As it is in SQL: the run may have passed the point of no return, or taken it back, since its claim.
        phase = session.scalar(select(JobRow.phase).where(JobRow.id == job.id))
        return phase not in PAST_POINT_OF_NO_RETURN
    return error is None or isinstance(error, TransferError)


def poll_again(session: Session, job: ClaimedJob, verify_seconds: float) -> bool:
    """Count a Stat poll that did not show the outcome; False once ``verify_seconds`` have passed since the first."""
    until = func.coalesce(JobRow.verify_until, db_now(verify_seconds))
    update_owned(session, job.id, job.token, polls=job.polls + 1, verify_until=until)
    return bool(session.scalar(select(JobRow.verify_until > db_now()).where(JobRow.id == job.id)))
