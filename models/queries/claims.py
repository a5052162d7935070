"""The claim, the lease, and the token that every write of a run says."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, update
from sqlalchemy.orm import Session

from blobferry.contract import UNFINISHED_UPLOADS, JobState
from blobferry.errors import LeaseLostError
from blobferry.sql.clock import db_now
from models.attempt import Attempt
from models.job import Job
from models.queries.conditions import claimable, now, past_return
from models.queries.history import open_attempt
from models.queries.locks import Hold, take_locks, wait_for
from models.queries.unowned import DEADLY_KEPT, requeue_expired
from models.upload import Upload


class Wishes(NamedTuple):
    """What somebody else wants of a job that runs."""

    cancel: bool
    pause: bool
    overdue: bool  #: its deadline is over


def nothing_held(job: Job) -> Sequence[Hold]:
    """For a claim that needs no path for itself."""
    return ()


def claim_job(
    session: Session,
    job_id: str,
    *,
    worker: str,
    lease_seconds: float,
    publish_seq: int | None = None,
    is_repeated: bool = False,
    holds: Callable[[Job], Sequence[Hold]] = nothing_held,
    failed_upload_seconds: float = DEADLY_KEPT,
) -> Job | None:
    """Take the job for a run, or None if it is not to be had. Two callers at once: one gets it.

    ``publish_seq`` is the message's number: an old message claims nothing. An expired lease is settled first, so that
    a run whose worker died counts as such however soon the next message comes. A job whose paths are another's waits
    for that one from then on. ``is_repeated`` is for a caller that does not know whether its first try was committed:
    it gets the job that this same worker took with this same message.
    """
    requeue_expired(session, limit=1, job_id=job_id, keep_upload_seconds=failed_upload_seconds)
    wanted = and_(*claimable())
    if publish_seq is not None:
        wanted &= Job.publish_seq == publish_seq
    if is_repeated:  # a worker's child runs one job at a time
        first = and_(Job.worker == worker, Job.lease_expires_at > now())
        wanted |= first if publish_seq is None else and_(first, Job.publish_seq == publish_seq + 1)
    with session.begin_nested() as claimed:
        job = _take(session, Job.id == job_id, wanted, worker=worker, lease_seconds=lease_seconds)
        if job is None:
            return None
        blocker = take_locks(session, job, holds(job))
        if blocker is None:
            open_attempt(session, job)
            _keep_uploads(session, job)
            return job
        claimed.rollback()
    wait_for(session, job_id, blocker)
    return None


def _take(session: Session, *wanted: ColumnElement[bool], worker: str, lease_seconds: float) -> Job | None:
    # Also of a job that was paused, or resumed by somebody, after its attempt had ended.
    lasts = exists().where(Attempt.job_id == Job.id, Attempt.attempt == Job.attempt, Attempt.outcome.is_(None))
    again = or_(Job.state == JobState.RETRYING, ~lasts)
    statement = (
        update(Job)
        .where(*wanted)
        .values(
            token=Job.token + 1,
            # Messages sent before this claim are old from now on; a repeated claim is still the same.
            publish_seq=Job.publish_seq + case((Job.lease_expires_at.is_(None), 1), else_=0),
            attempt=Job.attempt + case((again, 1), else_=0),
            state=case((Job.state == JobState.VERIFYING, JobState.VERIFYING), else_=JobState.RUNNING),
            worker=worker,
            lease_expires_at=db_now(lease_seconds),
            started_at=func.coalesce(Job.started_at, db_now()),
            updated_at=db_now(),
            run_at=None,
            published_at=None,
        )
        .returning(Job)
    )
    return session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()


def _keep_uploads(session: Session, job: Job) -> None:
    # They were to be kept for a while, for a run like this one.
    unfinished = (Upload.job_id == job.id, Upload.state.in_(UNFINISHED_UPLOADS), Upload.recheck_at.is_not(None))
    session.execute(update(Upload).where(*unfinished).values(recheck_at=None))


def extend_lease(session: Session, job_id: str, token: int, lease_seconds: float) -> Wishes | None:
    """Renew the lease; return what is wished, or None if another run owns the job."""
    return _update_owned(session, job_id, token, lease_expires_at=db_now(lease_seconds))


def update_owned(session: Session, job_id: str, token: int, **values: Any) -> Wishes:
    """Change the job on behalf of the run with this token. Raises LeaseLostError if it owns the job no longer.

    Every transaction of a run begins with this, also when it is about other tables: it locks the row.
    """
    wishes = _update_owned(session, job_id, token, updated_at=db_now(), **values)
    if wishes is None:
        raise LeaseLostError(f"job {job_id} is no longer run with token {token}")
    return wishes


def _update_owned(session: Session, job_id: str, token: int, **values: Any) -> Wishes | None:
    owned = (Job.id == job_id, Job.token == token, Job.lease_expires_at.is_not(None))  # null: the run has ended
    overdue = and_(Job.deadline.is_not(None), Job.deadline < db_now(), ~past_return())
    statement = update(Job).where(*owned).values(**values)
    returning = statement.returning(Job.cancel_requested, Job.pause_requested, overdue)
    row = session.execute(returning, execution_options={"synchronize_session": False}).one_or_none()
    return None if row is None else Wishes(bool(row[0]), bool(row[1]), bool(row[2]))
