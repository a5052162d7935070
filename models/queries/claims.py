"""The claim, the lease, and the token that every write of a run checks."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, update
from sqlalchemy.orm import Session

from blobferry.contract import UNFINISHED_UPLOADS, JobState, Phase
from blobferry.errors import LeaseLostError
from blobferry.sql.clock import db_now
from blobferry.sql.sqlite_connection import must_survive
from models.attempt import AttemptRow
from models.job import JobRow
from models.queries.conditions import claimable, now, past_point_of_no_return
from models.queries.history import open_attempt
from models.queries.locks import Hold, take_locks, wait_for
from models.queries.unowned import requeue_expired
from models.upload import UploadRow

#: Phases whose commit comes before something in the store that a run without it would not know of: an upload, a delete.
FORGOTTEN_IS_LOST: Final = frozenset({Phase.UPLOADING, Phase.COMPLETING, Phase.DELETING, Phase.DELETING_SOURCE})


class ControlRequests(NamedTuple):
    """What has been requested of a running job since its claim."""

    cancel: bool
    pause: bool
    overdue: bool  #: the deadline has passed


def claim_job(
    session: Session,
    job_id: str,
    *,
    worker: str,
    lease_seconds: float,
    failed_upload_seconds: float,
    publish_seq: int | None = None,
    is_repeated: bool = False,
    holds: Callable[[JobRow], Sequence[Hold]] = lambda job: (),
) -> JobRow | None:
    """Claim the job for a run; None if it cannot be claimed. Of two concurrent callers, one gets it.

    An expired lease is re-queued first, so that a dead run counts as a crash even if the next message comes at once. A
    job whose path another job holds is made to wait for that job.

    Args:
        worker: the name of the process that will run the job.
        lease_seconds: how long the run owns the job without a heartbeat.
        failed_upload_seconds: how long the upload is kept if the expired lease was one crash too many.
        publish_seq: the number of the message; an outdated message claims nothing. None: any number.
        is_repeated: the answer to an earlier try was lost, so a job that this worker has claimed with this message
            counts as claimed now.
        holds: returns the paths that the job needs for itself.
    """
    requeue_expired(session, limit=1, job_id=job_id, failed_upload_seconds=failed_upload_seconds)
    wanted = and_(*claimable())
    if publish_seq is not None:
        wanted &= JobRow.publish_seq == publish_seq
    if is_repeated:  # a process runs one job at a time, so a lease of this worker is that of the first try
        first = and_(JobRow.worker == worker, JobRow.lease_expires_at > now())
        wanted |= first if publish_seq is None else and_(first, JobRow.publish_seq == publish_seq + 1)
    with session.begin_nested() as claimed:
        job = _update_claimed(session, JobRow.id == job_id, wanted, worker=worker, lease_seconds=lease_seconds)
        if job is None:
            return None
        blocker = take_locks(session, job, holds(job))
        if blocker is None:
            open_attempt(session, job)
            _keep_unfinished_uploads(session, job)
            return job
        claimed.rollback()
    wait_for(session, job_id, blocker)
    return None


def _update_claimed(session: Session, *wanted: ColumnElement[bool], worker: str, lease_seconds: float) -> JobRow | None:
    # A job that was paused and resumed after its attempt had ended begins a new attempt.
    is_open = exists().where(
        AttemptRow.job_id == JobRow.id, AttemptRow.attempt == JobRow.attempt, AttemptRow.outcome.is_(None)
    )
    is_new_attempt = or_(JobRow.state == JobState.RETRYING, ~is_open)
    statement = (
        update(JobRow)
        .where(*wanted)
        .values(
            token=JobRow.token + 1,
            # Outdates the messages sent before this claim. A repeated claim must not raise it twice.
            publish_seq=JobRow.publish_seq + case((JobRow.lease_expires_at.is_(None), 1), else_=0),
            attempt=JobRow.attempt + case((is_new_attempt, 1), else_=0),
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


def _keep_unfinished_uploads(session: Session, job: JobRow) -> None:
    # An upload that was kept after a failure or a pause must not expire while this run works on it.
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
    """Set columns of the job for the run with this token; return the control requests. Raises LeaseLostError.

    Every transaction of a run begins with this call, even if it writes other tables only: it locks the row.
    """
    requests = _update_owned(session, job_id, token, updated_at=db_now(), **values)
    if values.get("phase") in FORGOTTEN_IS_LOST or values.get("deleted_any"):
        must_survive(session)
    if requests is None:
        raise LeaseLostError(f"job {job_id} no longer belongs to the run with token {token}")
    return requests


def _update_owned(session: Session, job_id: str, token: int, **values: Any) -> ControlRequests | None:
    # Without a lease the run has ended, although the token is still its own.
    owned = (JobRow.id == job_id, JobRow.token == token, JobRow.lease_expires_at.is_not(None))
    overdue = and_(JobRow.deadline.is_not(None), JobRow.deadline < db_now(), ~past_point_of_no_return())
    statement = update(JobRow).where(*owned).values(**values)
    returning = statement.returning(JobRow.cancel_requested, JobRow.pause_requested, overdue)
    row = session.execute(returning, execution_options={"synchronize_session": False}).one_or_none()
    return None if row is None else ControlRequests(bool(row[0]), bool(row[1]), bool(row[2]))
