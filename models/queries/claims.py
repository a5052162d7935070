"""The claim: a run takes a job, with its paths, in one transaction."""

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    String,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    literal,
    or_,
    update,
)
from sqlalchemy.orm import Session

from blobferry.contract import OPERATIONS, REQUEST_VERSION, UNFINISHED_UPLOADS, JobState
from blobferry.sql.clock import db_now
from blobferry.sql.tables import attempts, jobs
from blobferry.sql.worker_tables import lacks
from models.attempt import AttemptRow
from models.claimed_job import CLAIMED, FIRST_TOKEN, ClaimedJob
from models.job import JobRow
from models.queries.blockers import Hold
from models.queries.conditions import claimable, now
from models.queries.history import open_attempt
from models.queries.locks import take_locks, wait_for
from models.queries.unowned import requeue_expired
from models.upload import UploadRow


def claim_new_job(
    session: Session,
    job_id: str,
    *,
    worker: str,
    worker_id: str,
    lease_seconds: float,
    publish_seq: int | None = None,
    holds: Callable[[ClaimedJob], Sequence[Hold]] = lambda job: (),
) -> ClaimedJob | None:
    """Claim a job that no run has claimed before, in as few statements as possible; None, and nothing has changed.

    None does not mean that the job cannot be claimed: any job that is not new, has to wait for another one, or may have
    to be left to other workers is for :func:`claim_job`. The transaction is rolled back then, so nothing may
    be written before it.

    Args:
        worker: the name of the process that will run the job.
        worker_id: that of its worker. If it was ever seen to lack anything, it claims no job this way.
        lease_seconds: how long the run owns the job without a heartbeat.
        publish_seq: the number of the message; an outdated message claims nothing. None: any number.
        holds: returns the paths that the job needs for itself.
    """
    asked = {"the_job": job_id, "of_worker": worker_id, "seconds": lease_seconds, "number": publish_seq}
    row = session.execute(_CLAIM_NEW, {**asked, "worker": worker}).one_or_none()
    if row is None:
        return None
    job = ClaimedJob(**row._mapping)
    if take_locks(session, job, holds(job)) is not None:
        session.rollback()
        return None
    session.execute(_INSERT_ATTEMPT, {"job_id": job.id, "attempt": job.attempt, "worker": worker})
    job.sent_before, job.may_lack = job.bytes_sent, False
    return job


_INSERT_ATTEMPT: Final = insert(attempts)
_LACKS: Final = exists().where(lacks.c.worker == bindparam("of_worker", type_=String))
_CLAIM_NEW: Final = (
    update(jobs)
    .where(
        jobs.c.id == bindparam("the_job", type_=String),
        jobs.c.token == FIRST_TOKEN - 1,
        jobs.c.publish_seq == func.coalesce(bindparam("number", type_=BigInteger), jobs.c.publish_seq),
        jobs.c.state == JobState.QUEUED,
        jobs.c.worker.is_(None),
        jobs.c.waits_for.is_(None),
        jobs.c.operation.in_([literal(name) for name in OPERATIONS]),
        jobs.c.request_version <= REQUEST_VERSION,
        or_(jobs.c.run_at.is_(None), jobs.c.run_at <= db_now()),
        or_(jobs.c.deadline.is_(None), jobs.c.deadline >= db_now()),
        ~jobs.c.cancel_requested,
        ~jobs.c.pause_requested,
        ~_LACKS,
    )
    .values(
        token=FIRST_TOKEN,
        publish_seq=jobs.c.publish_seq + 1,  # outdates the messages sent before this claim
        attempt=jobs.c.attempt + 1,
        state=JobState.RUNNING,
        lease_expires_at=db_now(bindparam("seconds", type_=Float)),
        started_at=func.coalesce(jobs.c.started_at, db_now()),
        updated_at=db_now(),
        run_at=None,
        published_at=None,
    )
    .returning(*CLAIMED)
)


def claim_job(
    session: Session,
    job_id: str,
    *,
    worker: str,
    lease_seconds: float,
    failed_upload_seconds: float,
    publish_seq: int | None = None,
    is_repeated: bool = False,
    holds: Callable[[ClaimedJob], Sequence[Hold]] = lambda job: (),
) -> ClaimedJob | None:
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


def _update_claimed(
    session: Session, *wanted: ColumnElement[bool], worker: str, lease_seconds: float
) -> ClaimedJob | None:
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
        .returning(*CLAIMED)
    )
    row = session.execute(statement, execution_options={"synchronize_session": False}).one_or_none()
    return None if row is None else ClaimedJob(**row._mapping)


def _keep_unfinished_uploads(session: Session, job: ClaimedJob) -> None:
    # An upload that was kept after a failure or a pause must not expire while this run works on it.
    unfinished = (
        UploadRow.job_id == job.id,
        UploadRow.state.in_(UNFINISHED_UPLOADS),
        UploadRow.recheck_at.is_not(None),
    )
    session.execute(update(UploadRow).where(*unfinished).values(recheck_at=None))
