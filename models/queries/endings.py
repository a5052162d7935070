"""How a run ends: it releases its job, or ends it. All raise LeaseLostError if another run owns the job."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from blobferry.contract import PAST_POINT_OF_NO_RETURN, JobState
from blobferry.errors import BlobferryError, StoreError, TransferError
from blobferry.sql.clock import db_now
from models.job import JobRow
from models.queries.claims import update_owned
from models.queries.conditions import UNOWNED
from models.queries.history import close_attempt, described
from models.queries.locks import drop_locks
from models.queries.unowned import give_up_uploads, keep_paused_upload


def release_job(session: Session, job: JobRow, state: JobState, *, delay: float = 0.0, **values: Any) -> None:
    """Release the job, to be claimed again after ``delay`` seconds: after a slice, a drain, a Stat poll or an error."""
    update_owned(session, job.id, job.token, state=state, run_at=db_now(delay), crash_streak=0, **UNOWNED, **values)


def pause_job(session: Session, job: JobRow, *, paused_upload_seconds: float) -> None:
    """Release the job as paused, keeping its upload for that long; as queued if it was resumed in the meantime."""
    state = case((JobRow.pause_requested, JobState.PAUSED), else_=JobState.QUEUED)
    requests = update_owned(session, job.id, job.token, state=state, run_at=None, crash_streak=0, **UNOWNED)
    if requests.pause:
        keep_paused_upload(session, job.id, paused_upload_seconds)


def retry_job(
    session: Session, job: JobRow, error: BlobferryError, *, delay: float, failures: int, max_attempts: int
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
    release_job(session, job, JobState.RETRYING, delay=delay, **why)
    close_attempt(session, job.id, job.attempt, outcome="retrying", error=error)


def finish_job(session: Session, job: JobRow, result: Mapping[str, Any]) -> None:
    """End the job as succeeded, after Stat has shown its outcome."""
    _finish(session, job, JobState.SUCCEEDED, "succeeded", None, result=dict(result), bytes_done=job.size or 0)


def fail_job(session: Session, job: JobRow, error: BlobferryError, *, failed_upload_seconds: float = 0.0) -> None:
    """End the job as failed. Its upload is aborted after ``failed_upload_seconds``; 0: now."""
    _finish(session, job, JobState.FAILED, "failed", error, failed_upload_seconds=failed_upload_seconds)


def cancel_job(session: Session, job: JobRow) -> None:
    """End the job as cancelled, before its point of no return."""
    _finish(session, job, JobState.CANCELLED, "cancelled", None)


def _finish(
    session: Session,
    job: JobRow,
    state: JobState,
    outcome: str,
    error: BlobferryError | None,
    *,
    failed_upload_seconds: float = 0.0,
    **values: Any,
) -> None:
    code, message = described(error) if error else (None, None)
    certain = _is_certain(session, job, error)
    update_owned(
        session,
        job.id,
        job.token,
        state=state,
        phase=None,
        run_at=None,
        finished_at=db_now(),
        error_code=code,
        error_message=message,
        **UNOWNED,
        **values,
    )
    close_attempt(session, job.id, job.attempt, outcome=outcome, error=error)
    give_up_uploads(session, job.id, failed_upload_seconds=failed_upload_seconds, certain=certain)
    drop_locks(session, job.id)


def _is_certain(session: Session, job: JobRow, error: BlobferryError | None) -> bool:
    """Whether nothing can become visible any more: after a TransferError we looked.

    After a StoreError it cannot before the point of no return. Any other error may hide a completion that succeeds
    later.
    """
    if isinstance(error, StoreError):
        # As it is in SQL: the run may have passed the point of no return, or taken it back, since its claim.
        phase = session.scalar(select(JobRow.phase).where(JobRow.id == job.id))
        return phase not in PAST_POINT_OF_NO_RETURN
    return error is None or isinstance(error, TransferError)


def poll_again(session: Session, job: JobRow, verify_seconds: float) -> bool:
    """Count a Stat poll that did not show the outcome; False once ``verify_seconds`` have passed since the first."""
    until = func.coalesce(JobRow.verify_until, db_now(verify_seconds))
    update_owned(session, job.id, job.token, polls=job.polls + 1, verify_until=until)
    return bool(session.scalar(select(JobRow.verify_until > db_now()).where(JobRow.id == job.id)))
