"""Every statement of a job's life. The functions take a Session and never commit: whoever opened it does.

Two kinds of writers: the run that owns a job says its token (:func:`update_owned`), everybody else takes rows that
nobody owns, with SKIP LOCKED where the database knows it. Lease times are the database's clock, never a worker's.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    ScalarSelect,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from blobferry.clock import db_now
from blobferry.contract import (
    CLAIMABLE_STATES,
    FINAL_STATES,
    OPERATIONS,
    PAST_RETURN,
    REQUEST_VERSION,
    JobState,
    Phase,
    UploadState,
)
from blobferry.errors import (
    BlobferryError,
    DeadlineExceededError,
    LeaseLostError,
    StoreError,
    TransferError,
    WorkerDiedError,
)
from models.attempt import Attempt
from models.job import Job
from models.part import Part
from models.tombstone import Tombstone
from models.upload import Upload

MAX_CRASH_STREAK: Final = 5  #: workers that may die with one job in a row
MAX_CRASHES: Final = 20  #: workers that may die with one job in all
PUBLISHER_LOCK: Final = 0x626C6F62_66657272  #: any constant; "blobferr"
REPUBLISH_AFTER: Final = 30.0  #: seconds after which an unclaimed message counts as lost
AMBIGUOUS_KEPT: Final = 24 * 3600.0  #: seconds before an upload is aborted whose completion may yet take effect
FILES: Final = "file://"  #: with it the endpoint of a partial file begins; what follows is its host
HOST_GONE: Final = 7 * 24 * 3600.0  #: seconds after which nobody waits any more for a host to remove its partial file
_UNFINISHED_UPLOADS: Final = (UploadState.OPENING, UploadState.OPEN, UploadState.COMPLETING)


# --- claim and lease -----------------------------------------------------------------------------------------------


def claim_job(
    session: Session, job_id: str, *, worker: str, lease_seconds: float, publish_seq: int | None = None
) -> Job | None:
    """Take the job for a run, or None if it is not to be had. Two callers at once: one gets it.

    ``publish_seq`` is the message's number: an old message claims nothing. An expired lease is settled first, so
    that a run whose worker died counts as such however soon the next message comes.
    """
    requeue_expired(session, limit=1, job_id=job_id)
    again = or_(Job.attempt == 0, Job.state == JobState.RETRYING)
    wanted = [Job.id == job_id, *_claimable()]
    if publish_seq is not None:
        wanted.append(Job.publish_seq == publish_seq)
    statement = (
        update(Job)
        .where(*wanted)
        .values(
            token=Job.token + 1,
            publish_seq=Job.publish_seq + 1,  # messages sent before this claim are old from now on
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
    job = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if job is not None:
        _open_attempt(session, job)
    return job


def find_ended(session: Session, job_id: str, seconds: float) -> tuple[Job | None, bool]:
    """The job if it is final, and whether it has been for ``seconds``."""
    settled = Job.finished_at < _now(-seconds)
    row = session.execute(select(Job, settled).where(Job.id == job_id, Job.state.in_(FINAL_STATES))).one_or_none()
    return (row[0], bool(row[1])) if row else (None, False)


def find_job(session: Session, job_id: str) -> Job | None:
    """The job as it is now."""
    return session.scalars(select(Job).where(Job.id == job_id)).one_or_none()


def is_pruned(session: Session, job_id: str) -> bool:
    """True if there was such a job, long finished."""
    return session.get(Tombstone, job_id) is not None


def extend_lease(session: Session, job_id: str, token: int, lease_seconds: float) -> tuple[bool, bool] | None:
    """Renew the lease; return (cancel_requested, pause_requested), or None if another run owns the job."""
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.token == token, Job.lease_expires_at.is_not(None))  # null: the run has ended
        .values(lease_expires_at=db_now(lease_seconds))
        .returning(Job.cancel_requested, Job.pause_requested)
    )
    row = session.execute(statement).one_or_none()
    return None if row is None else (row.cancel_requested, row.pause_requested)


def update_owned(session: Session, job_id: str, token: int, **values: Any) -> None:
    """Change the job on behalf of the run with this token. Raises LeaseLostError if it owns the job no longer.

    Every transaction of a run begins with this, also when it is about other tables: it locks the row.
    """
    owned = (Job.id == job_id, Job.token == token, Job.lease_expires_at.is_not(None))  # null: the run has ended
    statement = update(Job).where(*owned).values(updated_at=db_now(), **values)
    if session.execute(statement, execution_options={"synchronize_session": False}).rowcount != 1:  # type: ignore[attr-defined]
        raise LeaseLostError(f"job {job_id} is no longer run with token {token}")


def requeue_expired(session: Session, *, limit: int, job_id: str | None = None) -> list[Job]:
    """Take jobs away from runs whose lease is over, and let them be claimed again.

    A job that has killed its worker too often ends failed instead. Raising the token fences a run that is only slow.
    """
    statement = select(Job).where(Job.lease_expires_at < _now()).order_by(Job.lease_expires_at).limit(limit)
    if job_id is not None:
        statement = statement.where(Job.id == job_id)
    expired = list(session.scalars(statement.with_for_update(skip_locked=True)))
    for job in expired:
        deaths = job.crash_streak + 1, job.crashes + 1
        error = WorkerDiedError(f"worker {job.worker} died, or lost touch with the database, while it ran this job")
        _close_attempt(session, job.id, job.attempt, outcome="died", error=error)
        job.token += 1
        job.crash_streak, job.crashes = deaths
        job.error_code, job.error_message = error.code, str(error)
        if job.crash_streak > MAX_CRASH_STREAK or job.crashes > MAX_CRASHES:
            job.error_message = f"worker died {job.crashes} times with this job, {job.crash_streak} of them in a row"
            _end(session, job, JobState.FAILED)
        else:
            _release(job, JobState.RETRYING)
        session.flush()
    return expired


# --- how a run ends ------------------------------------------------------------------------------------------------


def release_job(session: Session, job: Job, state: JobState, *, delay: float = 0.0, **values: Any) -> None:
    """Give the job back, to be claimed again after ``delay`` seconds: a slice, a drain, a pause or a Stat poll."""
    update_owned(session, job.id, job.token, state=state, run_at=db_now(delay), crash_streak=0, **_NOBODY, **values)


def retry_job(session: Session, job: Job, error: BlobferryError, *, delay: float, failures: int) -> None:
    """Record a transient error; the job may be claimed again after ``delay`` seconds."""
    _close_attempt(session, job.id, job.attempt, outcome="retrying", error=error)
    release_job(
        session,
        job,
        JobState.RETRYING,
        delay=delay,
        failures=failures,
        error_code=error.code,
        error_message=str(error),
    )


def finish_job(session: Session, job: Job, result: Mapping[str, Any]) -> None:
    """The job is done: Stat has shown it."""
    _finish(session, job, JobState.SUCCEEDED, "succeeded", None, result=dict(result), bytes_done=job.size or 0)


def fail_job(session: Session, job: Job, error: BlobferryError, *, keep_upload_seconds: float = 0.0) -> None:
    """The job has failed for good. Its upload is aborted, at once or after ``keep_upload_seconds``."""
    _finish(session, job, JobState.FAILED, "failed", error, keep_upload_seconds=keep_upload_seconds)


def cancel_job(session: Session, job: Job) -> None:
    """The run has seen the cancel before its point of no return."""
    _finish(session, job, JobState.CANCELLED, "cancelled", None)


def _finish(
    session: Session,
    job: Job,
    state: JobState,
    outcome: str,
    error: BlobferryError | None,
    *,
    keep_upload_seconds: float = 0.0,
    **values: Any,
) -> None:
    code, message = (error.code, str(error)) if error else (None, None)
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
        **_NOBODY,
        **values,
    )
    _close_attempt(session, job.id, job.attempt, outcome=outcome, error=error)
    # What the store or a look at it has decided is certain; any other error may hide a completion that still works.
    certain = error is None or isinstance(error, StoreError | TransferError)
    _give_up_uploads(session, job.id, keep_upload_seconds, certain=certain)


def poll_again(session: Session, job: Job, verify_seconds: float) -> bool:
    """Count a look of the Stat poll that did not show the blob; False once ``verify_seconds`` are over."""
    until = func.coalesce(Job.verify_until, db_now(verify_seconds))
    update_owned(session, job.id, job.token, polls=Job.polls + 1, verify_until=until)
    return bool(session.scalar(select(Job.verify_until > db_now()).where(Job.id == job.id)))


# --- the checkpoint ------------------------------------------------------------------------------------------------


def newest_upload(session: Session, job_id: str) -> Upload | None:
    """The upload that the job works on, unless it is known to be gone or is being aborted."""
    statement = (
        select(Upload)
        .where(Upload.job_id == job_id, Upload.state.not_in((UploadState.GONE, UploadState.ABORTING)))
        .order_by(Upload.id.desc())
        .limit(1)
    )
    return session.scalars(statement).one_or_none()


def parts_of(session: Session, upload: int) -> Sequence[Part]:
    """The checkpointed parts, by number."""
    return session.scalars(select(Part).where(Part.upload == upload).order_by(Part.part_number)).all()


def record_parts(session: Session, upload: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Checkpoint parts; a number that has a row already gets the new values."""
    rows = [{"upload": upload, **row} for row in rows]
    if not rows:
        return
    statement = _dialect(session).insert(Part)
    newer = {name: statement.excluded[name] for name in ("offset", "size", "etag", "checksum")}
    session.execute(statement.on_conflict_do_update(index_elements=["upload", "part_number"], set_=newer), rows)


def drop_parts(session: Session, upload: int, part_numbers: Collection[int]) -> int:
    """Forget parts that the store does not have as the rows say; return how many bytes they were."""
    statement = delete(Part).where(Part.upload == upload, Part.part_number.in_(part_numbers)).returning(Part.size)
    return sum(session.scalars(statement))


def update_upload(session: Session, upload: int, **values: Any) -> None:
    """Change an upload's row."""
    session.execute(update(Upload).where(Upload.id == upload).values(updated_at=db_now(), **values))


def begin_completing(session: Session, job: Job, *, base_etag: str) -> bool:
    """Pass the point of no return, unless a cancel came first: then False. Raises LeaseLostError."""
    update_owned(session, job.id, job.token)
    statement = (
        update(Job)
        .where(Job.id == job.id, or_(_past_return(), ~Job.cancel_requested))
        .values(phase=Phase.COMPLETING, base_etag=base_etag)
        .returning(Job.id)
    )
    return session.scalar(statement) is not None


def known_upload_ids(session: Session, bucket: str, endpoint: str, key: str) -> set[str]:
    """The ids of all uploads at a key that some row speaks of, whosever job it is and through whichever storage."""
    there = (Upload.bucket == bucket, Upload.endpoint == endpoint, Upload.key == key)
    statement = select(Upload.upload_id).where(*there)
    return {upload_id for upload_id in session.scalars(statement) if upload_id is not None}


def add_bytes_sent(session: Session, job: Job, sent: int) -> None:
    """Count bytes in the history; the job's own count goes with the owner's update."""
    of_attempt = (Attempt.job_id == job.id, Attempt.attempt == job.attempt)
    session.execute(update(Attempt).where(*of_attempt).values(bytes_sent=Attempt.bytes_sent + sent))


# --- the caretaker -------------------------------------------------------------------------------------------------


def jobs_to_publish(session: Session, *, limit: int, turn: int = 0) -> list[Job]:
    """Stamp the next-best claimable jobs, so that ``limit`` of them have a message on its way; the caller sends it.

    Highest priority first, then the oldest; every fifth pick (counted from ``turn``) is the oldest whatever its
    priority, so that nothing starves. Jobs whose message was not claimed within 30 s are published again, under the
    same number: the first message may only be waiting in a long queue, and whichever comes first is good.
    """
    if not _is_sole_publisher(session):
        return []
    lost = _now(-REPUBLISH_AFTER)
    waiting = select(func.count()).select_from(Job).where(*_claimable(), Job.published_at >= lost)
    limit -= session.scalar(waiting) or 0
    if limit <= 0:
        return []
    unpublished = (
        select(Job).where(*_claimable(), or_(Job.published_at.is_(None), Job.published_at < lost)).limit(limit)
    ).with_for_update(skip_locked=True)
    best = list(session.scalars(unpublished.order_by(Job.priority.desc(), Job.seq)))
    oldest = list(session.scalars(unpublished.order_by(Job.seq)))
    picked = pick_fairly(best, oldest, limit=limit, turn=turn)
    ids = [job.id for job in picked]
    session.execute(
        update(Job).where(Job.id.in_(ids)).values(published_at=db_now()),
        execution_options={"synchronize_session": False},
    )
    return picked


def pick_fairly(best: Sequence[Job], oldest: Sequence[Job], *, limit: int, turn: int) -> list[Job]:
    """``limit`` different jobs from the two orders, every fifth from ``oldest``."""
    picked: dict[str, Job] = {}
    for position in range(turn, turn + limit):
        order = oldest if position % 5 == 4 else best
        job = next((job for job in order if job.id not in picked), None)
        if job is None:
            break
        picked[job.id] = job
    return list(picked.values())


def end_idle(session: Session, *, limit: int) -> list[Job]:
    """Apply cancel and deadline to jobs that nobody runs."""
    idle = (Job.lease_expires_at.is_(None), Job.state.not_in(FINAL_STATES), ~_past_return())
    overdue = Job.deadline < _now()
    statement = select(Job, overdue.label("overdue")).where(*idle, or_(Job.cancel_requested, overdue)).limit(limit)
    ended = []
    for job, is_overdue in session.execute(statement.with_for_update(skip_locked=True)):
        if job.deadline and is_overdue and not job.cancel_requested:
            error = DeadlineExceededError(f"not finished by its deadline {job.deadline.isoformat()}")
            job.error_code, job.error_message = error.code, str(error)
            _close_attempt(session, job.id, job.attempt, outcome="failed", error=error)
            _end(session, job, JobState.FAILED)
        else:
            _close_attempt(session, job.id, job.attempt, outcome="cancelled", error=None)
            _end(session, job, JobState.CANCELLED)
        ended.append(job)
    session.flush()
    return ended


def uploads_to_abort(session: Session, *, limit: int, files_of: str) -> Sequence[Upload]:
    """Uploads to abort now: those given up, and aborted ones that are due for their second look.

    Partial files are left to their own host, which calls itself ``files_of``; after some days, to anybody.
    """
    retention_is_over = (Upload.state.in_(_UNFINISHED_UPLOADS), Upload.recheck_at < _now())
    session.execute(update(Upload).where(*retention_is_over).values(state=UploadState.ABORTING, recheck_at=None))
    not_put_off = or_(Upload.recheck_at.is_(None), Upload.recheck_at < _now())
    second_look = (Upload.state == UploadState.GONE) & (Upload.recheck_at < _now())
    due = or_((Upload.state == UploadState.ABORTING) & not_put_off, second_look)
    in_reach = or_(
        ~Upload.endpoint.startswith(FILES), Upload.endpoint == files_of, Upload.updated_at < _now(-HOST_GONE)
    )
    return session.scalars(select(Upload).where(due, in_reach).limit(limit)).all()


def put_off_abort(session: Session, upload: int, seconds: float) -> None:
    """It cannot be aborted now; others are not to wait behind it."""
    update_upload(session, upload, recheck_at=db_now(seconds))


def upload_is_gone(session: Session, upload: int, *, recheck_seconds: float | None) -> None:
    """The store shows nothing of it any more; look again after ``recheck_seconds``, if given."""
    recheck_at = None if recheck_seconds is None else db_now(recheck_seconds)
    update_upload(session, upload, state=UploadState.GONE, recheck_at=recheck_at)


def seconds_to_next_run(session: Session) -> float | None:
    """Seconds until the next job may be claimed that may not be yet; None if there is none."""
    row = session.execute(select(func.min(Job.run_at), _now()).where(*_waiting(), Job.run_at > _now())).one()
    return (row[0] - row[1]).total_seconds() if row[0] else None


def prune(session: Session, *, keep_seconds: float, tombstone_seconds: float, limit: int) -> int:
    """Delete finished jobs older than ``keep_seconds``, leaving tombstones, and old tombstones; return how many jobs.

    A job with an upload that is not yet known to be finished or gone stays: its rows are the only trace of it.
    """
    session.execute(delete(Tombstone).where(Tombstone.finished_at < _now(-tombstone_seconds)))
    open_uploads = select(Upload.id).where(
        Upload.job_id == Job.id, Upload.state.not_in((UploadState.COMPLETED, UploadState.GONE))
    )
    old = (
        select(Job.id, Job.finished_at)
        .where(Job.state.in_(FINAL_STATES), Job.finished_at < _now(-keep_seconds), ~open_uploads.exists())
        .order_by(Job.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(old).all()
    if rows:
        stones = [{"id": row.id, "finished_at": row.finished_at} for row in rows]
        session.execute(_dialect(session).insert(Tombstone).on_conflict_do_nothing(), stones)
        session.execute(delete(Job).where(Job.id.in_([row.id for row in rows])))
    return len(rows)


# --- shared parts --------------------------------------------------------------------------------------------------

_NOBODY: Final[Mapping[str, None]] = {"worker": None, "lease_expires_at": None, "published_at": None}


def _claimable() -> list[ColumnElement[bool]]:
    return [
        *_waiting(),
        or_(Job.run_at.is_(None), Job.run_at <= _now()),
        or_(_past_return(), Job.deadline.is_(None), Job.deadline >= _now()),
        or_(_past_return(), ~Job.cancel_requested & ~Job.pause_requested),
    ]


def _waiting() -> list[ColumnElement[bool]]:
    # The states stand in the statement itself, so that PostgreSQL sees that the partial indexes serve it. Jobs of an
    # operation or a request version that this one does not know are left to workers that do.
    states: BindParameter[Any] = bindparam("waiting", sorted(CLAIMABLE_STATES), expanding=True, literal_execute=True)
    known = (Job.operation.in_(tuple(OPERATIONS)), Job.request_version <= REQUEST_VERSION)
    return [Job.state.in_(states), Job.lease_expires_at.is_(None), *known]


def _now(seconds: float = 0.0) -> ScalarSelect[datetime]:
    # As a subquery it is evaluated once, so that an index can be searched for it; the clock alone is volatile.
    return select(db_now(seconds)).scalar_subquery()


def _is_sole_publisher(session: Session) -> bool:
    # Two at once would each see too few on their way. SQLite lets only one write at a time anyway.
    if session.get_bind().dialect.name != "postgresql":
        return True
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": PUBLISHER_LOCK}))


def _past_return() -> ColumnElement[bool]:
    return func.coalesce(Job.phase, "").in_(sorted(PAST_RETURN))


def _open_attempt(session: Session, job: Job) -> None:
    statement = _dialect(session).insert(Attempt).values(job_id=job.id, attempt=job.attempt, worker=job.worker)
    of_attempt = ["job_id", "attempt"]
    session.execute(statement.on_conflict_do_update(index_elements=of_attempt, set_={"worker": job.worker}))


def _close_attempt(session: Session, job_id: str, attempt: int, *, outcome: str, error: BlobferryError | None) -> None:
    code, message = (error.code, str(error)) if error else (None, None)
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job_id, Attempt.attempt == attempt, Attempt.outcome.is_(None))
        .values(outcome=outcome, error_code=code, error_message=message, finished_at=db_now())
    )


def _release(job: Job, state: JobState) -> None:
    job.state = state
    job.run_at = job.worker = job.lease_expires_at = job.published_at = None


def _end(session: Session, job: Job, state: JobState) -> None:
    _release(job, state)
    job.phase = None
    session.flush()
    finish = update(Job).where(Job.id == job.id).values(finished_at=db_now())
    session.execute(finish, execution_options={"synchronize_session": False})  # callers read the job afterwards
    _give_up_uploads(session, job.id, keep_seconds=0.0, certain=False)


def _give_up_uploads(session: Session, job_id: str, keep_seconds: float, *, certain: bool) -> None:
    unfinished = update(Upload).where(Upload.job_id == job_id, Upload.state.in_(_UNFINISHED_UPLOADS))
    if not keep_seconds and not certain:  # never abort on an ambiguous failure
        ambiguous = unfinished.where(Upload.state == UploadState.COMPLETING)
        session.execute(ambiguous.values(recheck_at=db_now(AMBIGUOUS_KEPT)))
        unfinished = unfinished.where(Upload.state != UploadState.COMPLETING)
    if keep_seconds:
        session.execute(unfinished.values(recheck_at=db_now(keep_seconds)))
    else:
        session.execute(unfinished.values(state=UploadState.ABORTING, recheck_at=None))


def _dialect(session: Session) -> Any:
    return sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
