"""Jobs that no run owns: re-queued after a crash; cancelled, failed or paused on request."""

from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, bindparam, select, text, update
from sqlalchemy.orm import Session

from blobferry.contract import FINAL_STATES, UNFINISHED_UPLOADS, JobState, UploadState
from blobferry.errors import DeadlineExceededError, WorkerDiedError
from blobferry.sql.clock import db_now
from blobferry.sql.index_conditions import DATED, OWNED, REQUESTED
from blobferry.sql.tables import jobs
from models.claimed_job import ClaimedJob
from models.job import JobRow
from models.message_row import MESSAGE_COLUMNS, MessageRow
from models.queries.conditions import UNOWNED, now, past_point_of_no_return
from models.queries.history import close_abandoned_attempt, described
from models.queries.locks import drop_locks
from models.queries.outbox import ENDED, note_end
from models.upload import UploadRow

MAX_CRASH_STREAK: Final = 5  #: workers in a row that may die while they run a job; one more fails it
MAX_CRASHES: Final = 20  #: workers in all that may die while they run a job; one more fails it
AMBIGUOUS_UPLOAD_SECONDS: Final = 24 * 3600.0  #: until an upload is aborted whose completion may still succeed

Found = Row[*tuple[Any, ...]]
_NO_OBJECTS: Final = {"synchronize_session": False}


def requeue_expired(
    session: Session, *, limit: int, failed_upload_seconds: float, job_id: str | None = None
) -> list[MessageRow]:
    """Re-queue jobs whose lease has expired, and return them. The raised token fences off a run that is only slow.

    A job that has crashed too often fails instead; its upload is kept for ``failed_upload_seconds``.
    """
    found = session.execute(_expired(is_one=job_id is not None), {"most": limit, "job_id": job_id}).all()
    return [_requeue(session, job, failed_upload_seconds) for job in found]


@cache
def _expired(*, is_one: bool) -> Select[Any]:
    columns = (JobRow.worker, JobRow.attempt, JobRow.bytes_sent, JobRow.crashes, JobRow.crash_streak, jobs.c.on_end)
    expired = select(*MESSAGE_COLUMNS, *columns).where(text(OWNED), JobRow.lease_expires_at < now(), *_one(is_one))
    return expired.order_by(JobRow.lease_expires_at).limit(bindparam("most")).with_for_update(skip_locked=True)


def _one(is_one: bool) -> list[ColumnElement[bool]]:
    return [JobRow.id == bindparam("job_id")] if is_one else []


def _requeue(session: Session, job: Found, failed_upload_seconds: float) -> MessageRow:
    error = WorkerDiedError(f"worker {job.worker} died or lost the database while it ran this job")
    close_abandoned_attempt(session, job, "died", error)
    code, message = described(error)
    streak, crashes = job.crash_streak + 1, job.crashes + 1
    counted: dict[str, Any] = {"token": JobRow.token + 1, "crash_streak": streak, "crashes": crashes}
    if streak > MAX_CRASH_STREAK or crashes > MAX_CRASHES:
        message = f"worker died {crashes} times with this job, {streak} of them in a row"
        counted |= {"error_code": code, "error_message": message}
        return _end(session, job, JobState.FAILED, failed_upload_seconds=failed_upload_seconds, **counted)
    return _release(session, job, JobState.RETRYING, error_code=code, error_message=message, **counted)


def expire_leases(session: Session, workers: list[str]) -> int:
    """Expire the leases of workers that are known to be dead; return how many leases there were."""
    held = (text(OWNED), JobRow.worker.in_(workers))
    statement = update(JobRow).where(*held).values(lease_expires_at=db_now(-0.001))
    return int(session.execute(statement, execution_options=_NO_OBJECTS).rowcount)  # type: ignore[attr-defined]


def owners(session: Session) -> list[str]:
    """The workers that hold a lease now."""
    return [str(worker) for worker in session.scalars(_owners())]


@cache
def _owners() -> Select[Any]:
    return select(JobRow.worker).where(text(OWNED)).distinct()


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
) -> list[MessageRow]:
    """Apply cancel, deadline and pause to jobs that no run owns; return those that ended or were paused."""
    changed = list[MessageRow]()
    for is_overdue in (False, True):  # one at a time, since each has an index
        given = {"most": max(0, limit - len(changed)), "job_id": job_id}
        found = session.execute(_to_change(is_overdue=is_overdue, is_one=job_id is not None), given).all()
        changed += [_apply(session, job, paused_upload_seconds) for job in found]
    return changed


@cache
def _to_change(*, is_overdue: bool, is_one: bool) -> Select[Any]:
    unowned = (text(DATED), JobRow.deadline < now()) if is_overdue else (text(REQUESTED),)
    requested = (JobRow.cancel_requested, JobRow.pause_requested)
    columns = (JobRow.attempt, JobRow.bytes_sent, JobRow.deadline, *requested, jobs.c.on_end)
    late = (JobRow.deadline.is_not(None) & (JobRow.deadline < now())).label("is_overdue")
    found = select(*MESSAGE_COLUMNS, *columns, late).where(*unowned, ~past_point_of_no_return(), *_one(is_one))
    return found.limit(bindparam("most")).with_for_update(skip_locked=True)


def _apply(session: Session, job: Found, paused_upload_seconds: float) -> MessageRow:
    if job.cancel_requested:
        close_abandoned_attempt(session, job, "cancelled")
        return _end(session, job, JobState.CANCELLED)
    if job.is_overdue:
        error = deadline_error(job)
        code, message = described(error)
        close_abandoned_attempt(session, job, "failed", error)
        return _end(session, job, JobState.FAILED, error_code=code, error_message=message)
    paused = _release(session, job, JobState.PAUSED)
    keep_paused_upload(session, job.id, paused_upload_seconds)
    return paused


def deadline_error(job: ClaimedJob | Found) -> DeadlineExceededError:
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


def _release(session: Session, job: Found, state: JobState, **values: Any) -> MessageRow:
    released = {**UNOWNED, "run_at": None, "waits_for": None, "state": state, **values}
    session.execute(update(jobs).where(jobs.c.seq == job.seq).values(**released))
    return MessageRow.of(job, state=state)


def _end(
    session: Session, job: Found, state: JobState, *, failed_upload_seconds: float = 0.0, **values: Any
) -> MessageRow:
    ended = _release(session, job, state, phase=None, finished_at=db_now(), **ENDED, **values)
    note_end(session, state, {job.id: (job.storage, job.on_end)})
    give_up_uploads(session, job.id, failed_upload_seconds=failed_upload_seconds, certain=False)
    drop_locks(session, job.id)
    return ended
