"""Jobs that no run owns: re-queued after a crash; cancelled, failed or paused on request."""

from typing import Final

from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from blobferry.contract import FINAL_STATES, UNFINISHED_UPLOADS, JobState, UploadState
from blobferry.errors import DeadlineExceededError, WorkerDiedError
from blobferry.sql.clock import db_now
from models.claimed_job import ClaimedJob
from models.job import JobRow
from models.queries.conditions import UNOWNED, now, past_point_of_no_return
from models.queries.history import close_abandoned_attempt, described
from models.queries.locks import drop_locks
from models.upload import UploadRow

MAX_CRASH_STREAK: Final = 5  #: workers in a row that may die while they run a job; one more fails it
MAX_CRASHES: Final = 20  #: workers in all that may die while they run a job; one more fails it
AMBIGUOUS_UPLOAD_SECONDS: Final = 24 * 3600.0  #: until an upload is aborted whose completion may still succeed


def requeue_expired(
    session: Session, *, limit: int, failed_upload_seconds: float, job_id: str | None = None
) -> list[JobRow]:
    """Re-queue jobs whose lease has expired, and return them. The raised token fences off a run that is only slow.

    A job that has crashed too often fails instead; its upload is kept for ``failed_upload_seconds``.
    """
    statement = select(JobRow).where(JobRow.lease_expires_at < now()).order_by(JobRow.lease_expires_at).limit(limit)
    if job_id is not None:
        statement = statement.where(JobRow.id == job_id)
    expired = list(session.scalars(statement.with_for_update(skip_locked=True)))
    for job in expired:
        error = WorkerDiedError(f"worker {job.worker} died or lost the database while it ran this job")
        close_abandoned_attempt(session, job, "died", error)
        job.token += 1
        job.crash_streak += 1
        job.crashes += 1
        job.error_code, job.error_message = described(error)
        if job.crash_streak > MAX_CRASH_STREAK or job.crashes > MAX_CRASHES:
            job.error_message = f"worker died {job.crashes} times with this job, {job.crash_streak} of them in a row"
            _end(session, job, JobState.FAILED, failed_upload_seconds=failed_upload_seconds)
        else:
            _release(job, JobState.RETRYING)
        session.flush()
    return expired


def expire_leases(session: Session, workers: list[str]) -> int:
    """Expire the leases of workers that are known to be dead; return how many leases there were."""
    held = (JobRow.worker.in_(workers), JobRow.lease_expires_at.is_not(None))
    statement = update(JobRow).where(*held).values(lease_expires_at=db_now(-0.001))
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def owners(session: Session) -> list[str]:
    """The workers that hold a lease now."""
    return list(session.scalars(select(JobRow.worker).where(JobRow.lease_expires_at.is_not(None)).distinct()))


def request_cancel(session: Session, job_ids: list[str]) -> int:
    """Request a cancel of those of the jobs that are not past the point of no return; return how many."""
    to_cancel = (
        JobRow.id.in_(job_ids),
        JobRow.state.not_in(FINAL_STATES),
        ~past_point_of_no_return(),
        ~JobRow.cancel_requested,
    )
    # Locked in the order of submission, as in a claim, so that two transactions never wait for each other.
    locked = session.scalars(select(JobRow.id).where(*to_cancel).order_by(JobRow.seq).with_for_update()).all()
    session.execute(update(JobRow).where(JobRow.id.in_(locked)).values(cancel_requested=True))
    return len(locked)


def apply_requests(
    session: Session, *, limit: int, paused_upload_seconds: float, job_id: str | None = None
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
            close_abandoned_attempt(session, job, "cancelled")
            _end(session, job, JobState.CANCELLED)
        elif is_overdue:
            error = deadline_error(job)
            job.error_code, job.error_message = described(error)
            close_abandoned_attempt(session, job, "failed", error)
            _end(session, job, JobState.FAILED)
        else:
            _release(job, JobState.PAUSED)
            keep_paused_upload(session, job.id, paused_upload_seconds)
        changed.append(job)
    session.flush()
    return changed


def deadline_error(job: JobRow | ClaimedJob) -> DeadlineExceededError:
    """The error of a job that missed its deadline. The job must have one."""
    assert job.deadline is not None, "a job without a deadline cannot be late"
    return DeadlineExceededError(f"not finished by its deadline {job.deadline.isoformat()}")


def keep_paused_upload(session: Session, job_id: str, paused_upload_seconds: float) -> None:
    """Keep the upload of a paused job for that long. A job without an upload loses its place in line."""
    unfinished = (UploadRow.job_id == job_id, UploadRow.state.in_(UNFINISHED_UPLOADS))
    kept = update(UploadRow).where(*unfinished).values(recheck_at=db_now(paused_upload_seconds))
    if not session.execute(kept).rowcount:  # type: ignore[attr-defined]
        drop_locks(session, job_id)


def give_up_uploads(session: Session, job_id: str, *, failed_upload_seconds: float, certain: bool) -> None:
    """Have the unfinished uploads of an ended job aborted after ``failed_upload_seconds``; 0: now.

    Unless ``certain``, the job's error may hide a completion that succeeds later: that upload is kept for a day.
    """
    unfinished = update(UploadRow).where(UploadRow.job_id == job_id, UploadRow.state.in_(UNFINISHED_UPLOADS))
    if not failed_upload_seconds and not certain:  # never abort on an ambiguous failure
        ambiguous = unfinished.where(UploadRow.state == UploadState.COMPLETING)
        session.execute(ambiguous.values(recheck_at=db_now(AMBIGUOUS_UPLOAD_SECONDS)))
        unfinished = unfinished.where(UploadRow.state != UploadState.COMPLETING)
    if failed_upload_seconds:
        session.execute(unfinished.values(recheck_at=db_now(failed_upload_seconds)))
    else:
        session.execute(unfinished.values(state=UploadState.ABORTING, recheck_at=None))


def _release(job: JobRow, state: JobState) -> None:
    job.state = state
    for column in (*UNOWNED, "run_at", "waits_for"):
        setattr(job, column, None)


def _end(session: Session, job: JobRow, state: JobState, *, failed_upload_seconds: float = 0.0) -> None:
    _release(job, state)
    job.phase = None
    session.flush()
    finish = update(JobRow).where(JobRow.id == job.id).values(finished_at=db_now())
    session.execute(finish, execution_options={"synchronize_session": False})  # callers read the job afterwards
    give_up_uploads(session, job.id, failed_upload_seconds=failed_upload_seconds, certain=False)
    drop_locks(session, job.id)
