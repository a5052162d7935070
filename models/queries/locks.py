"""Path locks: one writer or many readers at a time for each path of a bucket, in the order of their submission.

A job takes all of its locks in its first claim, or none, and keeps them until it ends. A job that cannot have them
waits for the job right before it in line (``waits_for``), and is neither published nor claimable until that job ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Boolean,
    ColumnElement,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from blobferry.checks.source_urls import blob_url
from blobferry.contract import FINAL_STATES, UNFINISHED_UPLOADS, JobState
from blobferry.jobs.job_queries import lies_below
from models.job import JobRow
from models.path_lock import PathLockRow
from models.queries.conditions import dialect, now
from models.upload import UploadRow

UNFINISHED: Final = sorted(state for state in JobState if state not in FINAL_STATES)

# The conditions of partial indexes, word for word.
IS_MOVE: Final = literal_column("operation = 'move'", Boolean)
IS_COPY: Final = literal_column("substr(source, 1, 7) = 'blob://'", Boolean)


@dataclass(frozen=True, slots=True)
class Hold:
    """A path that a job needs: for itself, or shared with other readers. With ``is_tree``, also everything below it."""

    bucket: str  #: identifies the bucket, endpoint included
    key: str
    is_tree: bool
    #: The path of this key in each storage that shares the bucket; "" if the tree contains the whole storage.
    names: Mapping[str, str]
    is_shared: bool = False


def take_locks(session: Session, job: JobRow, holds: Sequence[Hold]) -> str | None:
    """Take all locks that the job needs and return None; or take none and return the id of the job to wait for."""
    # FOR UPDATE: a caretaker may be dropping the locks of a job that was paused for too long.
    locks = session.scalars(select(PathLockRow).where(PathLockRow.job_id == job.id).with_for_update())
    mine = {(lock.bucket, lock.path, is_shared) for lock in locks for is_shared in {lock.is_shared, True}}
    if all((hold.bucket, hold.key, hold.is_shared) in mine for hold in holds):
        return None  # a job that holds its paths must not wait, since others may be waiting for it
    for bucket in sorted({hold.bucket for hold in holds}):
        lock_bucket(session, bucket)
    for find_blocker in (_earlier_in_line, _later_holder):
        for hold in holds:
            blocker = find_blocker(session, job, hold)
            if blocker is not None:
                return blocker
    _insert_locks(session, job, holds)
    return None


def wait_for(session: Session, job_id: str, blocker: str) -> None:
    """Make the job wait until ``blocker`` ends. If ``blocker`` no longer blocks, the job stays claimable.

    A waiting job gives up its locks and wakes the earlier jobs that wait for it, so jobs never wait in a circle.
    """
    # FOR SHARE: without it, a blocker that ends between this SELECT and our UPDATE would never wake this job.
    still = session.scalar(select(JobRow.id).where(JobRow.id == blocker, has_place(JobRow)).with_for_update(read=True))
    if not _set_waits_for(session, and_(JobRow.id == job_id, JobRow.lease_expires_at.is_(None)), still):
        return  # another worker has claimed the job in the meantime
    session.execute(delete(PathLockRow).where(PathLockRow.job_id == job_id))
    seq = select(JobRow.seq).where(JobRow.id == job_id).scalar_subquery()
    _set_waits_for(session, and_(JobRow.waits_for == job_id, JobRow.seq < seq), None)


def drop_locks(session: Session, job_id: str) -> None:
    """Drop all locks of the job and wake the jobs that wait for it."""
    session.execute(delete(PathLockRow).where(PathLockRow.job_id == job_id))
    _set_waits_for(session, JobRow.waits_for == job_id, None)


def drop_stale_locks(session: Session) -> int:
    """Drop the locks of jobs that have no place in line; return how many waiting jobs were woken."""
    blocker = aliased(JobRow)
    placeless = select(JobRow.id).where(~has_place(JobRow))
    stale = delete(PathLockRow).where(PathLockRow.job_id.in_(placeless))
    session.execute(stale, execution_options={"synchronize_session": False})
    holds = exists().where(PathLockRow.job_id == blocker.id)
    still_blocks = exists().where(
        blocker.id == JobRow.waits_for, has_place(blocker), or_(blocker.seq < JobRow.seq, holds)
    )
    return _set_waits_for(session, and_(JobRow.waits_for.is_not(None), ~still_blocks), None)


def _set_waits_for(session: Session, which: ColumnElement[bool], blocker: object) -> int:
    statement = update(JobRow).where(which).values(waits_for=blocker, published_at=None)
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return int(result.rowcount)  # type: ignore[attr-defined]


def _insert_locks(session: Session, job: JobRow, holds: Sequence[Hold]) -> None:
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
    statement = dialect(session).insert(PathLockRow)
    kinds = {name: statement.excluded[name] for name in ("is_tree", "is_shared")}
    session.execute(statement.on_conflict_do_update(index_elements=["bucket", "path", "job_id"], set_=kinds), rows)


def lock_bucket(session: Session, bucket: str) -> None:
    """Let one transaction at a time look for overlapping paths of the bucket and take its locks."""
    # Two claims that both read before either one writes would both succeed. SQLite has one writer at a time.
    if session.get_bind().dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(hashtext('blobferry'), hashtext(:bucket))")
        session.execute(lock, {"bucket": bucket})


def _earlier_in_line(session: Session, job: JobRow, hold: Hold) -> str | None:
    """The last job submitted before this one that needs the path, and not only for reading if this one reads."""
    overlapping = or_(*(_needs(hold, storage, path) for storage, path in hold.names.items()))
    earlier = select(JobRow.id).where(JobRow.seq < job.seq, has_place(JobRow), overlapping)
    return session.scalar(earlier.order_by(JobRow.seq.desc()).limit(1))


def _needs(hold: Hold, storage: str, path: str) -> ColumnElement[bool]:
    """The job needs this path of the storage, deletes a directory above it, or, for a tree, needs a path below it."""

    def is_held(column: ColumnElement[Any] | InstrumentedAttribute[Any], place: str) -> ColumnElement[bool]:
        return or_(column == place, lies_below(column, place)) if hold.is_tree else column == place

    dest_storage = func.coalesce(JobRow.request["dest_storage"].as_string(), JobRow.storage)
    above = and_(JobRow.storage == storage, JobRow.operation == "delete", JobRow.path.in_(ancestors(path)))
    at_path = and_(dest_storage == storage, is_held(JobRow.path, path))
    moved = and_(JobRow.storage == storage, IS_MOVE, is_held(JobRow.source, path))
    if hold.is_shared:
        return or_(above, and_(at_path, JobRow.operation != "read_stream"), moved)
    return or_(above, at_path, moved, and_(IS_COPY, is_held(JobRow.source, blob_url(storage, path))))


def _later_holder(session: Session, job: JobRow, hold: Hold) -> str | None:
    """A job that holds the path although it was submitted later: it was claimed before this job was due."""
    overlaps = [PathLockRow.path == hold.key, and_(PathLockRow.is_tree, PathLockRow.path.in_(ancestors(hold.key)))]
    if hold.is_tree:
        overlaps.append(lies_below(PathLockRow.path, hold.key))
    others = [PathLockRow.bucket == hold.bucket, PathLockRow.job_id != job.id]
    if hold.is_shared:
        others.append(~PathLockRow.is_shared)
    return session.scalar(select(PathLockRow.job_id).where(*others, or_(*overlaps)).limit(1))


def ancestors(path: str) -> list[str]:
    """The directories above a path, deepest first."""
    found = []
    while "/" in path:
        path = path.rpartition("/")[0]
        if path:
            found.append(path)
    return found


def has_place(job: type[JobRow]) -> ColumnElement[bool]:
    """The job has its place in line: it is due, not final, and not paused without an upload."""
    uploading = exists().where(UploadRow.job_id == job.id, UploadRow.state.in_(UNFINISHED_UPLOADS))
    # Literal states, because PostgreSQL uses the partial indexes for nothing else.
    states: BindParameter[list[JobState]] = bindparam(
        "unfinished", UNFINISHED, expanding=True, literal_execute=True, unique=True
    )
    due = or_(job.not_before.is_(None), job.not_before <= now(), job.attempt > 0)
    return and_(job.state.in_(states), due, or_(job.state != JobState.PAUSED, uploading))
