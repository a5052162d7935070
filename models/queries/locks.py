"""Path locks: one writer or many readers at a time for each path of a bucket, in the order of their submission.

A job takes all of its locks in its first claim, or none, and keeps them until it ends. A job that cannot have them
waits for the job right before it in line (``waits_for``), and is neither published nor claimable until that job ends.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, String, and_, bindparam, delete, select, text, update
from sqlalchemy.orm import Session

from blobferry.sql.tables import jobs, path_locks
from models.claimed_job import ClaimedJob
from models.job import JobRow
from models.path_lock import PathLockRow
from models.queries.blockers import Hold, find_blocker
from models.queries.conditions import dialect
from models.queries.places import has_place

_OF_JOB: Final = bindparam("of_job", type_=String)
_DROP: Final = delete(path_locks).where(path_locks.c.job_id == _OF_JOB)
_WAKE: Final = update(jobs).where(jobs.c.waits_for == _OF_JOB).values(waits_for=None, published_at=None)
_LOCK_BUCKET: Final = text("SELECT pg_advisory_xact_lock(hashtext('blobferry'), hashtext(:bucket))")


def take_locks(session: Session, job: ClaimedJob, holds: Sequence[Hold]) -> str | None:
    """Take all locks that the job needs and return None; or take none and return the id of the job to wait for."""
    if not job.is_first_run and _has_locks(session, job, holds):
        return None  # a job that holds its paths must not wait, since others may be waiting for it
    for bucket in sorted({hold.bucket for hold in holds}):
        lock_bucket(session, bucket)
    blocker = find_blocker(session, job, holds)
    if blocker is None:
        _insert_locks(session, job, holds)
    return blocker


def wait_for(session: Session, job_id: str, blocker: str) -> None:
    """Make the job wait until ``blocker`` ends. If ``blocker`` no longer blocks, the job stays claimable.

    A waiting job gives up its locks and wakes the earlier jobs that wait for it, so jobs never wait in a circle.
    """
    # FOR SHARE: without it, a blocker that ends between this SELECT and our UPDATE would never wake this job.
    still = session.scalar(select(JobRow.id).where(JobRow.id == blocker, has_place(JobRow)).with_for_update(read=True))
    if not set_waits_for(session, and_(JobRow.id == job_id, JobRow.lease_expires_at.is_(None)), still):
        return  # another worker has claimed the job in the meantime
    session.execute(delete(PathLockRow).where(PathLockRow.job_id == job_id))
    seq = select(JobRow.seq).where(JobRow.id == job_id).scalar_subquery()
    set_waits_for(session, and_(JobRow.waits_for == job_id, JobRow.seq < seq), None)


def drop_locks(session: Session, job_id: str) -> None:
    """Drop all locks of the job and wake the jobs that wait for it."""
    session.execute(_DROP, {"of_job": job_id})
    session.execute(_WAKE, {"of_job": job_id})


def set_waits_for(session: Session, which: ColumnElement[bool], blocker: object) -> int:
    """Let these jobs wait for ``blocker``, None for nobody; return how many there are."""
    statement = update(JobRow).where(which).values(waits_for=blocker, published_at=None)
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return int(result.rowcount)  # type: ignore[attr-defined]


def _has_locks(session: Session, job: ClaimedJob, holds: Sequence[Hold]) -> bool:
    # FOR UPDATE: a caretaker may be dropping the locks of a job that was paused for too long.
    locks = session.scalars(select(PathLockRow).where(PathLockRow.job_id == job.id).with_for_update())
    mine = {(lock.bucket, lock.path, is_shared) for lock in locks for is_shared in {lock.is_shared, True}}
    return all((hold.bucket, hold.key, hold.is_shared) in mine for hold in holds)


def _insert_locks(session: Session, job: ClaimedJob, holds: Sequence[Hold]) -> None:
    rows = [
        {
            "bucket": hold.bucket,
            "path": hold.key,
            "job_id": job.id,
            "is_tree": hold.is_tree,
            "is_shared": hold.is_shared,
        }
        for hold in holds
    ]
    if rows:
        session.execute(_insert(dialect(session)), rows)


@cache
def _insert(of: Any) -> Any:
    statement = of.insert(path_locks)
    kinds = {name: statement.excluded[name] for name in ("is_tree", "is_shared")}
    return statement.on_conflict_do_update(index_elements=["bucket", "path", "job_id"], set_=kinds)


def lock_bucket(session: Session, bucket: str) -> None:
    """Let one transaction at a time look for overlapping paths of the bucket and take its locks."""
    # Two claims that both read before either one writes would both succeed. SQLite has one writer at a time.
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_LOCK_BUCKET, {"bucket": bucket})
