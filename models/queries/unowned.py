"""Jobs that no run owns: re-queued after a crash; cancelled, failed or paused on request."""

from typing import Final

from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from blobferry.contract import FINAL_STATES, UNFINISHED_UPLOADS, JobState, UploadState
from blobferry.errors import DeadlineExceededError, WorkerDiedError
from blobferry.sql.clock import db_now
from models.job import JobRow
from models.queries.conditions import NOBODY, now, past_point_of_no_return
from models.queries.history import close_attempt
from models.queries.locks import drop_locks
from models.upload import UploadRow

MAX_CRASH_STREAK: Final = 5  #: workers that may die with one job in a row
MAX_CRASHES: Final = 20  #: workers that may die with one job in all
AMBIGUOUS_KEPT: Final = 24 * 3600.0  #: seconds before an upload is aborted whose completion may still take effect
FAILED_KEPT: Final = 24 * 3600.0  #: default of ``failed_upload_seconds`` for a job that crashed too often
PAUSED_KEPT: Final = 7 * 24 * 3600.0  #: default of ``paused_upload_seconds``


def requeue_expired(
    session: Session, *, limit: int, job_id: str | None = None, failed_upload_seconds: float = FAILED_KEPT
) -> list[JobRow]:
    """Re-queue jobs whose lease has expired. The raised token fences a run that is only slow.

    A job that has crashed too often fails instead; its upload is kept for ``failed_upload_seconds``.
    """
    statement = select(JobRow).where(JobRow.lease_expires_at < now()).order_by(JobRow.lease_expires_at).limit(limit)
    if job_id is not None:
        statement = statement.where(JobRow.id == job_id)
    expired = list(session.scalars(statement.with_for_update(skip_locked=True)))
    for job in expired:
        deaths = job.crash_streak + 1, job.crashes + 1
        error = WorkerDiedError(f"worker {job.worker} died or lost the database while it ran this job")
        close_attempt(session, job.id, job.attempt, outcome="died", error=error)
        job.token += 1
        job.crash_streak, job.crashes = deaths
        job.error_code, job.error_message = error.code, str(error)
        if job.crash_streak > MAX_CRASH_STREAK or job.crashes > MAX_CRASHES:
            job.error_message = f"worker died {job.crashes} times with this job, {job.crash_streak} of them in a row"
            _end(session, job, JobState.FAILED, keep_upload_seconds=failed_upload_seconds)
        else:
            _release(job, JobState.RETRYING)
        session.flush()
    return expired


def expire_leases(session: Session, workers: list[str]) -> int:
    """Expire the leases of workers that are known to be dead; return how many there were."""
    held = (JobRow.worker.in_(workers), JobRow.lease_expires_at.is_not(None))
    statement = update(JobRow).where(*held).values(lease_expires_at=db_now(-0.001))
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def owners(session: Session) -> list[str]:
    """The workers that hold a lease now."""
    return list(session.scalars(select(JobRow.worker).where(JobRow.lease_expires_at.is_not(None)).distinct()))


def ask_to_cancel(session: Session, job_ids: list[str]) -> int:
    """Request a cancel of those jobs that are not past their point of no return; return how many."""
    to_cancel = (
        JobRow.id.in_(job_ids),
        JobRow.state.not_in(FINAL_STATES),
        ~past_point_of_no_return(),
        ~JobRow.cancel_requested,
    )
    # Locked in the order of submission, as claims do: two transactions must not wait for each other.
    locked = session.scalars(select(JobRow.id).where(*to_cancel).order_by(JobRow.seq).with_for_update()).all()
    session.execute(update(JobRow).where(JobRow.id.in_(locked)).values(cancel_requested=True))
    return len(locked)


def apply_requests(
    session: Session, *, limit: int, job_id: str | None = None, paused_upload_seconds: float = PAUSED_KEPT
) -> list[JobRow]:
    """Apply cancel, deadline and pause to jobs that no run owns; return those that ended or were paused."""
    overdue = and_(JobRow.deadline.is_not(None), JobRow.deadline < now())
    to_pause = and_(JobRow.pause_requested, JobRow.state != JobState.PAUSED)
    statement = (
        select(JobRow, overdue)
        .where(JobRow.lease_expires_at.is_(None), JobRow.state.not_in(FINAL_STATES), ~past_point_of_no_return())
        .where(or_(JobRow.cancel_requested, overdue, to_pause))
        .limit(limit)
    )
    if job_id is not None:
        statement = statement.where(JobRow.id == job_id)
    changed = []
    for job, is_overdue in session.execute(statement.with_for_update(skip_locked=True)):
        if job.cancel_requested:
            close_attempt(session, job.id, job.attempt, outcome="cancelled", error=None)
            _end(session, job, JobState.CANCELLED)
        elif is_overdue:
            error = deadline_error(job)
            job.error_code, job.error_message = error.code, str(error)
            close_attempt(session, job.id, job.attempt, outcome="failed", error=error)
            _end(session, job, JobState.FAILED)
        else:
            _release(job, JobState.PAUSED)
            keep_paused(session, job.id, paused_upload_seconds)
        changed.append(job)
    session.flush()
    return changed


def deadline_error(job: JobRow) -> DeadlineExceededError:
    """The error of a job that missed its deadline."""
    assert job.deadline is not None, "a job without a deadline cannot be late"
    return DeadlineExceededError(f"not finished by its deadline {job.deadline.isoformat()}")


def keep_paused(session: Session, job_id: str, paused_upload_seconds: float) -> None:
    """Keep the upload of a paused job for so long. Without an upload the job gives up its place in line."""
    unfinished = (UploadRow.job_id == job_id, UploadRow.state.in_(UNFINISHED_UPLOADS))
    kept = update(UploadRow).where(*unfinished).values(recheck_at=db_now(paused_upload_seconds))
    if not session.execute(kept).rowcount:  # type: ignore[attr-defined]
        drop_locks(session, job_id)


def give_up_uploads(session: Session, job_id: str, keep_upload_seconds: float, *, certain: bool) -> None:
    """Mark the uploads of an ended job to be aborted, now or after ``keep_upload_seconds``.

    Unless ``certain``, the job's error may hide a completion that still takes effect: such an upload is kept a day.
    """
    unfinished = update(UploadRow).where(UploadRow.job_id == job_id, UploadRow.state.in_(UNFINISHED_UPLOADS))
    if not keep_upload_seconds and not certain:  # never abort on an ambiguous failure
        ambiguous = unfinished.where(UploadRow.state == UploadState.COMPLETING)
        session.execute(ambiguous.values(recheck_at=db_now(AMBIGUOUS_KEPT)))
        unfinished = unfinished.where(UploadRow.state != UploadState.COMPLETING)
    if keep_upload_seconds:
        session.execute(unfinished.values(recheck_at=db_now(keep_upload_seconds)))
    else:
        session.execute(unfinished.values(state=UploadState.ABORTING, recheck_at=None))


def _release(job: JobRow, state: JobState) -> None:
    job.state = state
    for column in (*NOBODY, "run_at", "waits_for"):
        setattr(job, column, None)


def _end(session: Session, job: JobRow, state: JobState, *, keep_upload_seconds: float = 0.0) -> None:
    _release(job, state)
    job.phase = None
    session.flush()
    finish = update(JobRow).where(JobRow.id == job.id).values(finished_at=db_now())
    session.execute(finish, execution_options={"synchronize_session": False})  # callers read the job afterwards
    give_up_uploads(session, job.id, keep_upload_seconds, certain=False)
    drop_locks(session, job.id)
