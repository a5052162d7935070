"""The claim, the lease, and the token that every write of a run checks."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, update
from sqlalchemy.orm import Session

from blobferry.contract import UNFINISHED_UPLOADS, JobState
from blobferry.errors import LeaseLostError
from blobferry.sql.clock import db_now
from models.attempt import AttemptRow
from models.job import JobRow
from models.queries.conditions import claimable, now, past_point_of_no_return
from models.queries.history import open_attempt
from models.queries.locks import Hold, take_locks, wait_for
from models.queries.unowned import FAILED_KEPT, requeue_expired
from models.upload import UploadRow


class ControlRequests(NamedTuple):
    """What was requested of a running job meanwhile."""

    cancel: bool
    pause: bool
    overdue: bool  #: its deadline has passed


def nothing_held(job: JobRow) -> Sequence[Hold]:
    """The holds of a job that needs no path for itself."""
    return ()


def claim_job(
    session: Session,
    job_id: str,
    *,
    worker: str,
    lease_seconds: float,
    publish_seq: int | None = None,
    is_repeated: bool = False,
    holds: Callable[[JobRow], Sequence[Hold]] = nothing_held,
    failed_upload_seconds: float = FAILED_KEPT,
) -> JobRow | None:
    """Take the job for a run; None if it cannot be claimed. Of two callers at once, one gets it.

    An expired lease is re-queued first, so that a dead run counts as a crash however soon the next message comes. A job
    whose path another job holds waits for that job from now on.

    Args:
        worker: the name of the process that will run the job.
        lease_seconds: how long the run owns the job without a heartbeat.
        publish_seq: the number of the message; an old message claims nothing. None: no message.
        is_repeated: the answer to an earlier try was lost. Then the job that this worker took with this very message
            counts as claimed.
        holds: the paths that the job needs for itself.
        failed_upload_seconds: how long the upload is kept if this claim finds that the job has crashed too often.
    """
    requeue_expired(session, limit=1, job_id=job_id, failed_upload_seconds=failed_upload_seconds)
    wanted = and_(*claimable())
    if publish_seq is not None:
        wanted &= JobRow.publish_seq == publish_seq
    if is_repeated:  # this process runs one job at a time, so it is the job of the first try
        first = and_(JobRow.worker == worker, JobRow.lease_expires_at > now())
        wanted |= first if publish_seq is None else and_(first, JobRow.publish_seq == publish_seq + 1)
    with session.begin_nested() as claimed:
        job = _take(session, JobRow.id == job_id, wanted, worker=worker, lease_seconds=lease_seconds)
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


def _take(session: Session, *wanted: ColumnElement[bool], worker: str, lease_seconds: float) -> JobRow | None:
    # A job may be paused and resumed after its attempt has ended: then a new attempt begins.
    lasts = exists().where(
        AttemptRow.job_id == JobRow.id, AttemptRow.attempt == JobRow.attempt, AttemptRow.outcome.is_(None)
    )
    again = or_(JobRow.state == JobState.RETRYING, ~lasts)
    statement = (
        update(JobRow)
        .where(*wanted)
        .values(
            token=JobRow.token + 1,
            # Messages sent before this claim become old; a repeated claim does not count.
            publish_seq=JobRow.publish_seq + case((JobRow.lease_expires_at.is_(None), 1), else_=0),
            attempt=JobRow.attempt + case((again, 1), else_=0),
            state=case((JobRow.state == JobState.VERIFYING, JobState.VERIFYING), else_=JobState.RUNNING),
            worker=worker,
            lease_expires_at=db_now(lease_seconds),
            started_at=func.coalesce(JobRow.started_at, db_now()),
            updated_at=db_now(),
            run_at=None,
            published_at=None,
        )
        .returning(JobRow)
    )
    return session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()


def _keep_uploads(session: Session, job: JobRow) -> None:
    # The upload was kept for a run like this one: it must not expire under it.
    unfinished = (
        UploadRow.job_id == job.id,
        UploadRow.state.in_(UNFINISHED_UPLOADS),
        UploadRow.recheck_at.is_not(None),
    )
    session.execute(update(UploadRow).where(*unfinished).values(recheck_at=None))


def extend_lease(session: Session, job_id: str, token: int, lease_seconds: float) -> ControlRequests | None:
    """Renew the lease; return the control requests, or None if another run owns the job."""
    return _update_owned(session, job_id, token, lease_expires_at=db_now(lease_seconds))


def update_owned(session: Session, job_id: str, token: int, **values: Any) -> ControlRequests:
    """Change the job for the run with this token; return the control requests. Raises LeaseLostError.

    Every transaction of a run begins with this, also when it writes other tables: it locks the row.
    """
    requests = _update_owned(session, job_id, token, updated_at=db_now(), **values)
    if requests is None:
        raise LeaseLostError(f"job {job_id} no longer belongs to the run with token {token}")
    return requests


def _update_owned(session: Session, job_id: str, token: int, **values: Any) -> ControlRequests | None:
    owned = (
        JobRow.id == job_id,
        JobRow.token == token,
        JobRow.lease_expires_at.is_not(None),
    )  # null: the run has ended
    overdue = and_(JobRow.deadline.is_not(None), JobRow.deadline < db_now(), ~past_point_of_no_return())
    statement = update(JobRow).where(*owned).values(**values)
    returning = statement.returning(JobRow.cancel_requested, JobRow.pause_requested, overdue)
    row = session.execute(returning, execution_options={"synchronize_session": False}).one_or_none()
    return None if row is None else ControlRequests(bool(row[0]), bool(row[1]), bool(row[2]))
